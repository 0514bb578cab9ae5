"""What a schedule has done, where no process of ours goes on by itself: one round of everything.

Results that the inbox has are told to a ledger that missed them, the API is asked for what is
overdue, and handlers run what is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from receiver.dispatch.dispatcher import Dispatcher
from receiver.handlers.retry import describe
from receiver.results.reconcile import InboxGateway, reconciler
from receiver.stores.base import Store
from receiver.telemetry import TelemetryEvent
from submitter.errors import SubmitterError
from submitter.ledger.base import Ledger, Result

if TYPE_CHECKING:
    from submitter.api.client import Calls

BRINGING = 0.5
"""The part of the time for results: handlers have the rest, however slow the API is."""

AT_ONCE = 1000
"""Open submissions that are looked for in the inbox, the longest sent first."""


class DrainRound:
    """One round at a time or several at once, in any number of processes: nothing is done twice.

    Args:
        store: the inbox; open.
        dispatcher: runs handlers.
        handlers: their names.
        ledger: of submissions; open.
        door: of the inbox.
        connect: makes the API's calls; None where it is not to be asked.
        overdue: seconds; see `Schedule`.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        handlers: Sequence[str],
        *,
        ledger: Ledger,
        door: InboxGateway,
        connect: Callable[[], Calls] | None,
        overdue: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._handlers = tuple(handlers)
        self._ledger = ledger
        self._door = door
        self._connect = connect
        self._overdue = overdue
        self._clock = clock

    async def run(self, limit: int | None, deadline: float) -> Mapping[str, int]:
        """Do what is due.

        Args:
            limit: dispatches at most; None for all.
            deadline: seconds; what has not ended then is given back.

        Returns:
            How many dispatches were `ran`, how many results were `reconciled` (the inbox or the
            ledger did not have them), and whether there is `more` that is due.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        clock = asyncio.get_running_loop()
        until = clock.time() + deadline
        reconciled = 0
        bringing = [self._catch_up]
        if self._connect is not None:
            bringing.append(partial(self._ask, self._connect))
        try:
            async with asyncio.timeout(deadline * BRINGING):
                for bring in bringing:
                    reconciled += await bring()
        except Exception as error:  # noqa: BLE001 - handlers run whatever happens here
            self._failed(error)
        ran = await self._dispatcher.drain(limit, max(0.0, until - clock.time()))
        due = await self._store.next_due(self._handlers)
        more = due is not None and due <= self._clock()
        return {"ran": ran, "reconciled": reconciled, "more": more}

    async def _catch_up(self) -> int:
        """Tell the ledger of what the inbox has: its process may have been frozen before it did."""
        entries = await self._ledger.open_entries(limit=AT_ONCE)
        keys = {entry.task_id: entry.key for entry in entries if entry.task_id}
        there = await self._door.known(list(keys)) if keys else {}
        results = [Result(result, keys[id], delivered=True) for id, result in there.items()]
        return len(await self._ledger.finish(results, self._clock())) if results else 0

    async def _ask(self, connect: Callable[[], Calls]) -> int:
        """Bring what is overdue."""
        # Importing the HTTP client takes longer than others should wait for the event loop.
        calls = await asyncio.to_thread(connect)
        async with calls:
            report = await reconciler(calls, self._ledger, self._door, self._overdue).round()
        return report.found

    def _failed(self, error: Exception) -> None:
        # The text of an error that is not ours may quote an input (F16).
        ours = isinstance(error, SubmitterError)
        text = describe(error) if ours else type(error).__name__
        self._door.tell(TelemetryEvent("reconcile.failed", error=text))
