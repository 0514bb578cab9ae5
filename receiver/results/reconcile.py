"""Results that no webhook brought: asked for at the API, and let in through the same door."""

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
from submitter.reconcile.report import Found, Told

if TYPE_CHECKING:
    from submitter.api.client import Calls
    from submitter.reconcile.reconciler import Reconciler

AGAIN = 30.0
"""Seconds until reconciling is begun again where it could not begin, or has ended."""


class InboxGateway:
    """The inbox, as a reconciler sees it.

    Args:
        intake: the way in.
        store: its store.
        hooks: are told of what was stored.
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

    async def deliver(self, found: Found) -> bool:
        """Let a result in; True where it was not there (F29, F30).

        Raises:
            LedgerUnavailable: it cannot be stored now.
        """
        event = fetched_event(found.prediction, context=found.context, now=self._clock())
        try:
            accepted = await self._intake.store(event, found.key)
        except StoreError as error:
            raise LedgerUnavailable(describe(error)) from error
        new = not accepted.receipt.duplicate
        if new:
            self.tell(
                TelemetryEvent(
                    "reconcile.stored", source=event.source, event_id=event.id, type=event.type
                )
            )
        return new

    async def known(self, task_ids: Sequence[str]) -> Mapping[str, Prediction]:
        """The results that are there, by task id; the first received, where there are two (F31).

        Raises:
            LedgerUnavailable: it cannot be read now.
        """
        ids = [id for task_id in task_ids for id in terminal_ids(task_id)]
        try:
            events = (await self._store.find(ids)).values()
        except StoreError as error:
            raise LedgerUnavailable(describe(error)) from error
        latest_first = sorted(events, key=lambda event: -event.received_at)
        return {event.subject or "": _prediction(event) for event in latest_first}

    def told(self, told: Told) -> None:
        """Pass on what a reconciler has done; how much is overdue is asked for at each scrape."""
        if told.name != "reconcile.overdue":
            self.tell(
                TelemetryEvent(
                    told.name, task_id=told.task_id, submission=told.key, error=told.error
                )
            )

    def tell(self, details: TelemetryEvent) -> None:
        """Tell the hooks."""
        for hook in self._hooks:
            hook(details)


def reconciler(calls: Calls, ledger: Ledger, door: InboxGateway, overdue: float) -> Reconciler:
    """A reconciler that brings what it finds to the inbox.

    Args:
        calls: of the API; entered.
        ledger: open.
        door: of the inbox.
        overdue: seconds; see `Schedule`.
    """
    # It brings the HTTP client.
    from submitter.reconcile.reconciler import Reconciler
    from submitter.reconcile.schedule import Schedule

    return Reconciler(
        calls,
        ledger,
        schedule=Schedule(overdue),
        deliver=door.deliver,
        inbox=door.known,
        tell=door.told,
    )


class BackgroundReconciler:
    """Reconciles beside the requests, from `start` to `stop`; no failure ends it.

    Args:
        run: reconciles until it is cancelled.
        tell: told where it could not.
        again: seconds until it is begun again.
    """

    def __init__(
        self,
        run: Callable[[], Awaitable[None]],
        *,
        tell: Hook,
        again: float = AGAIN,
    ) -> None:
        self._run = run
        self._tell = tell
        self._again = again
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; nobody waits for it."""
        self._task = asyncio.create_task(self._keep_running(), name="wavehook-reconcile")

    async def stop(self) -> None:
        """End; what is under way is due again later."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001 - the receiver goes on whatever happens here
                # The text of an error that is not ours may quote an input (F16).
                ours = isinstance(error, SubmitterError)
                text = describe(error) if ours else type(error).__name__
                self._tell(TelemetryEvent("reconcile.failed", error=text))
            await asyncio.sleep(self._again)


def background(
    connect: Callable[[], Calls], ledger: Ledger, door: InboxGateway, overdue: float
) -> BackgroundReconciler:
    """What `serve` runs.

    Args:
        connect: makes the API's calls.
        ledger: open by the time of `start`.
        door: of the inbox.
        overdue: seconds; see `Schedule`.
    """

    async def run() -> None:
        # Importing the HTTP client takes longer than a sender should wait for the event loop.
        calls = await asyncio.to_thread(connect)
        async with calls:
            await reconciler(calls, ledger, door, overdue).run()

    return BackgroundReconciler(run, tell=door.tell)


def _prediction(event: Event) -> Prediction:
    """What an event says of its task; of a purged one, that it ended, and how."""
    status = event.id.removeprefix(f"{WAVESPEED}:{event.subject}:")
    return event.prediction or Prediction(
        event.subject or "", status, raw={"id": event.subject, "status": status}
    )
