"""Reconciling: results whose webhook did not arrive are fetched from the API and stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from receiver.errors import StoreError
from receiver.event import Event
from receiver.handlers.retry import describe
from receiver.intake import Intake
from receiver.sources.base import WAVESPEED, fetched_event, terminal_ids
from receiver.stores.base import Store
from receiver.telemetry import Hook, TelemetryEvent
from submitter.errors import LedgerUnavailable, SubmitterError
from submitter.ledger.base import Ledger
from submitter.prediction import Prediction
from submitter.reconcile.deliver import FoundResult, ReconcileEvent

if TYPE_CHECKING:
    from submitter.api.client import ApiClient
    from submitter.reconcile.reconciler import Reconciler

RESTART_DELAY_S = 30.0
"""Seconds until reconciling starts again after it failed or ended."""


class InboxGateway:
    """The inbox as a reconciler sees it.

    Args:
        intake: stores results.
        store: the store of `intake`.
        hooks: called for every result that was stored.
        clock: Unix seconds.
    """

    def __init__(
        self,
        intake: Intake,
        store: Store,
        *,
        hooks: Sequence[Hook] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._store = store
        self._hooks = tuple(hooks)
        self._clock = clock

    async def deliver(self, found: FoundResult) -> bool:
        """Store a result; True if it is new.

        Raises:
            LedgerUnavailable: the store cannot accept it now.
        """
        event = fetched_event(found.prediction, context=found.context, now=self._clock())
        try:
            accepted = await self._intake.store(event, found.key)
        except StoreError as error:
            raise LedgerUnavailable(describe(error)) from error
        new = not accepted.receipt.duplicate
        if new:
            self.emit(
                TelemetryEvent(
                    "reconcile.stored", source=event.source, event_id=event.id, type=event.type
                )
            )
        return new

    async def known(self, task_ids: Sequence[str]) -> Mapping[str, Prediction]:
        """Stored results by task id; the first one received if a task has two.

        Raises:
            LedgerUnavailable: the store cannot be read now.
        """
        ids = [id for task_id in task_ids for id in terminal_ids(task_id)]
        try:
            events = (await self._store.find(ids)).values()
        except StoreError as error:
            raise LedgerUnavailable(describe(error)) from error
        latest_first = sorted(events, key=lambda event: -event.received_at)
        return {event.subject or "": _prediction(event) for event in latest_first}

    def told(self, told: ReconcileEvent) -> None:
        """Pass a reconciler's report on; the overdue count is read at each scrape instead."""
        if told.name != "reconcile.overdue":
            self.emit(
                TelemetryEvent(
                    told.name, task_id=told.task_id, submission=told.key, error=told.error
                )
            )

    def emit(self, event: TelemetryEvent) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook(event)


def make_reconciler(
    calls: ApiClient, ledger: Ledger, gateway: InboxGateway, overdue: float
) -> Reconciler:
    """Make a reconciler that stores what it finds in the inbox.

    Args:
        calls: the API client; entered.
        ledger: open.
        gateway: to the inbox.
        overdue: seconds after a submit until its result is overdue, without statistics.
    """
    # Imports the HTTP client.
    from submitter.reconcile.reconciler import Reconciler
    from submitter.reconcile.schedule import Schedule

    return Reconciler(
        calls,
        ledger,
        schedule=Schedule(overdue),
        deliver=gateway.deliver,
        inbox=gateway.known,
        tell=gateway.told,
    )


class BackgroundReconciler:
    """A service that reconciles beside the requests; it starts again after every failure.

    Args:
        run: reconciles until it is cancelled.
        hook: called for every failure.
        restart_delay: seconds until it starts again.
    """

    def __init__(
        self,
        run: Callable[[], Awaitable[None]],
        *,
        hook: Hook,
        restart_delay: float = RESTART_DELAY_S,
    ) -> None:
        self._run = run
        self._hook = hook
        self._restart_delay = restart_delay
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start in the background."""
        self._task = asyncio.create_task(self._keep_running(), name="wavehook-reconcile")

    async def stop(self) -> None:
        """Stop; unfinished work is due again later."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001 - no failure may end the receiver
                text = failure_text(error)
                self._hook(TelemetryEvent("reconcile.failed", error=text))
            await asyncio.sleep(self._restart_delay)


def background_reconciler(
    connect: Callable[[], ApiClient], ledger: Ledger, gateway: InboxGateway, overdue: float
) -> BackgroundReconciler:
    """Make the reconciler that `serve` runs beside the requests.

    Args:
        connect: makes the API client.
        ledger: open before `start`.
        gateway: to the inbox.
        overdue: as for `make_reconciler`.
    """

    async def run() -> None:
        # In a thread: importing the HTTP client would block the event loop for too long.
        calls = await asyncio.to_thread(connect)
        async with calls:
            await make_reconciler(calls, ledger, gateway, overdue).run()

    return BackgroundReconciler(run, hook=gateway.emit)


def failure_text(error: Exception) -> str:
    """A line for the log; only the class of an unexpected error, whose text may quote an input."""
    return describe(error) if isinstance(error, SubmitterError) else type(error).__name__


def _prediction(event: Event) -> Prediction:
    """The prediction in an event; of a purged one, only the status."""
    status = event.id.removeprefix(f"{WAVESPEED}:{event.subject}:")
    return event.prediction or Prediction(
        event.subject or "", status, raw={"id": event.subject, "status": status}
    )
