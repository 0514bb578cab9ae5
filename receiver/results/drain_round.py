"""One round of work for a schedule, on platforms where no process runs between requests.

The ledger learns of results that only the inbox has, overdue results are fetched from the API, and
handlers run what is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from receiver.dispatch.dispatcher import Dispatcher
from receiver.results.reconcile import InboxGateway, failure_text, make_reconciler
from receiver.stores.base import Store
from receiver.telemetry import TelemetryEvent
from submitter.ledger.base import Ledger, Result

if TYPE_CHECKING:
    from submitter.api.client import ApiClient

RECONCILE_SHARE = 0.5
"""Share of the deadline for reconciling: handlers get the rest, however slow the API is."""

MAX_SUBMISSIONS = 1000
"""Most open submissions that are searched for in the inbox, oldest first."""


class DrainRound:
    """One round of everything that is due; any number may run at once, in any process.

    Args:
        store: the inbox; open.
        dispatcher: runs handlers.
        handlers: their names.
        ledger: of submissions; open.
        gateway: to the inbox.
        connect: makes the API client; None to leave the API alone.
        overdue: as for `make_reconciler`.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        handlers: Sequence[str],
        *,
        ledger: Ledger,
        gateway: InboxGateway,
        connect: Callable[[], ApiClient] | None,
        overdue: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._handlers = tuple(handlers)
        self._ledger = ledger
        self._gateway = gateway
        self._connect = connect
        self._overdue = overdue
        self._clock = clock

    async def run(self, limit: int | None, deadline: float) -> Mapping[str, int]:
        """Do what is due.

        Args:
            limit: the most dispatches to run; None for all.
            deadline: seconds; unfinished dispatches are released then.

        Returns:
            `ran`: the number of dispatches; `reconciled`: the number of results that the inbox or
            the ledger did not have; `more`: whether more is due.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        reconciled = 0
        try:
            async with asyncio.timeout(deadline * RECONCILE_SHARE):
                reconciled += await self._update_ledger()
                if self._connect is not None:
                    reconciled += await self._fetch_overdue(self._connect)
        except Exception as error:  # noqa: BLE001 - handlers run in any case
            self._gateway.emit(TelemetryEvent("reconcile.failed", error=failure_text(error)))
        ran = await self._dispatcher.drain(limit, max(0.0, until - loop.time()))
        due = await self._store.next_due(self._handlers)
        more = due is not None and due <= self._clock()
        return {"ran": ran, "reconciled": reconciled, "more": more}

    async def _update_ledger(self) -> int:
        """Write stored results to the ledger: their process may have been frozen before it did."""
        entries = await self._ledger.open_entries(limit=MAX_SUBMISSIONS)
        keys = {entry.task_id: entry.key for entry in entries if entry.task_id}
        stored = await self._gateway.known(list(keys)) if keys else {}
        results = [Result(result, keys[id], delivered=True) for id, result in stored.items()]
        return len(await self._ledger.finish(results, self._clock())) if results else 0

    async def _fetch_overdue(self, connect: Callable[[], ApiClient]) -> int:
        """Fetch overdue results from the API."""
        # In a thread: importing the HTTP client would block the event loop for too long.
        calls = await asyncio.to_thread(connect)
        async with calls:
            reconciler = make_reconciler(calls, self._ledger, self._gateway, self._overdue)
            report = await reconciler.round()
        return report.found
