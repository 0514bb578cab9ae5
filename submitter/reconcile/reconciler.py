"""Reconciler: fetches results whose webhook is missing, and settles submits without a response.

It sends few requests: a task is queried only when overdue, at growing intervals, by one process at
a time, and a 429 or a refused key pauses all queries.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Callable, Sequence

from submitter.api.client import ApiClient
from submitter.errors import AuthFailed, NotFound, RateLimited, SubmitterError, Unavailable
from submitter.ledger.base import Entry, Ledger, Result, State
from submitter.prediction import Prediction
from submitter.reconcile.deliver import (
    DeliverResult,
    FindInInbox,
    ReconcileEvent,
    ReconcileReport,
    ResultDelivery,
    error_text,
    has_ended,
)
from submitter.reconcile.lost_submits import LostSubmits
from submitter.reconcile.schedule import API_RETENTION_S, Schedule

MAX_CONCURRENT_QUERIES = 4
"""Queries in flight."""

BATCH_SIZE = 100
"""Entries or tasks that are processed together."""


class Reconciler:
    """Settles the unfinished submissions of the ledger.

    Args:
        calls: the API client; its maker opens and closes it.
        ledger: open.
        schedule: times of the queries.
        deliver: passes results to the inbox; None if this process has no inbox: the ledger then
            keeps them for a reconciler that has one.
        inbox: results that the inbox already has, which are not queried.
        tell: called with each step.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        calls: ApiClient,
        ledger: Ledger,
        *,
        schedule: Schedule,
        deliver: DeliverResult | None = None,
        inbox: FindInInbox | None = None,
        tell: Callable[[ReconcileEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._schedule = schedule
        self._inbox = inbox
        self._tell = tell
        self._clock = clock
        self._random = random
        self._delivery = ResultDelivery(ledger, deliver, tell=tell, clock=clock)
        self._lost_submits = LostSubmits(
            calls, ledger, schedule, self._delivery, tell=tell, clock=clock, random=random
        )
        self._quiet_until = 0.0

    async def run(self) -> None:
        """Run rounds until cancelled; no failure ends it."""
        while True:
            try:
                await self.round()
                count = await self._ledger.overdue(self._clock())
                self._tell(ReconcileEvent("reconcile.overdue", count=count))
            except Exception as error:  # noqa: BLE001 - it must outlive any bug
                self._tell(ReconcileEvent("reconcile.failed", error=error_text(error)))
            await asyncio.sleep(self._schedule.tick)

    async def round(self, *, keys: Sequence[str] | None = None) -> ReconcileReport:
        """Settle and query everything that is due now.

        Args:
            keys: only these submissions; None: all.

        Raises:
            LedgerUnavailable: the ledger cannot be read or written.
        """
        report = ReconcileReport()
        await self._hand_over(report)
        now = self._clock()
        if now < self._quiet_until:
            return report
        due = await self._ledger.due(now, hold=self._schedule.hold, limit=BATCH_SIZE, keys=keys)
        due = await self._without_known(due)
        doubtful = [entry for entry in due if entry.state is not State.ACCEPTED]
        running = [entry for entry in due if entry.state is State.ACCEPTED]
        # Entries that a failure leaves out are due again after `hold`.
        try:
            await self._lost_submits.settle(doubtful, report)
            await self._query_all(running, now, report)
        except (RateLimited, AuthFailed) as error:
            # Every further query would fail in the same way.
            self._delivery.count(error, report)
            wait = self._schedule.hold
            if isinstance(error, RateLimited):
                wait = error.retry_after or self._schedule.pause(0, self._random)
                await self._ledger.pause(self._clock() + wait)
            self._quiet_until = self._clock() + wait
        return report

    async def compare_history(
        self, *, since: float, known: FindInInbox, dry_run: bool = False
    ) -> ReconcileReport:
        """Deliver every result of the API's history that the inbox does not have.

        It also finds tasks of other tools, except those created less than `overdue` ago: their
        own webhook may still arrive, with a context that the ledger does not have.

        Args:
            since: Unix seconds.
            known: results that the inbox has.
            dry_run: only count.

        Raises:
            ApiError: the API refused.
            Unavailable: it did not answer.
            LedgerUnavailable: ledger or inbox cannot be read or written.
        """
        report, several = ReconcileReport(), list[Prediction]()
        async for prediction in self._calls.history(created_after=since):
            if prediction.terminal:
                several.append(prediction)
            if len(several) == BATCH_SIZE:
                await self._compare(several, known, report, dry_run=dry_run)
                several = []
        await self._compare(several, known, report, dry_run=dry_run)
        return report

    async def _compare(
        self,
        several: list[Prediction],
        known: FindInInbox,
        report: ReconcileReport,
        *,
        dry_run: bool,
    ) -> None:
        ids = [prediction.id for prediction in several]
        in_inbox = await known(ids)
        entries = await self._ledger.find_tasks(ids)
        for prediction in several:
            entry = entries.get(prediction.id)
            # A submit without a webhook wants no event.
            unwanted = self._is_young(prediction) if entry is None else not entry.webhook
            if prediction.id in in_inbox or unwanted:
                continue
            if dry_run:
                report.found += 1
                report.tasks.append(prediction.id)
            else:
                await self._delivery.end(prediction, entry, report)

    def _is_young(self, prediction: Prediction) -> bool:
        at = prediction.created_at
        return at is not None and at.timestamp() > self._clock() - self._schedule.overdue

    async def _hand_over(self, report: ReconcileReport) -> None:
        """Pass the inbox the results that callers queried at their timeout."""
        if not self._delivery.to_inbox:
            return
        failures = 0
        for entry in await self._ledger.undelivered(self._clock() - self._schedule.soon):
            if entry.prediction is None:
                continue
            taken = await self._delivery.end(entry.prediction, entry, report)
            failures = 0 if taken else failures + 1
            if failures == MAX_CONCURRENT_QUERIES:
                return

    async def _without_known(self, due: Sequence[Entry]) -> list[Entry]:
        """The entries whose result the inbox does not have yet."""
        ids = [entry.task_id for entry in due if entry.task_id]
        if self._inbox is None or not ids:
            return list(due)
        in_inbox = await self._inbox(ids)
        results = [
            Result(in_inbox[entry.task_id], entry.key, delivered=True)
            for entry in due
            if entry.task_id and entry.task_id in in_inbox
        ]
        if results:
            await self._ledger.finish(results, self._clock())
        return [entry for entry in due if entry.task_id not in in_inbox]

    async def _query_all(
        self, running: Sequence[Entry], since: float, report: ReconcileReport
    ) -> None:
        """Query in small groups until the API fails, or others may take the entries over."""
        for start in range(0, len(running), MAX_CONCURRENT_QUERIES):
            if self._clock() - since > self._schedule.hold / 2:
                return
            some = running[start : start + MAX_CONCURRENT_QUERIES]
            outcomes = await asyncio.gather(
                *(self._query(entry, report) for entry in some), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            if not any(outcomes):
                return

    async def _query(self, entry: Entry, report: ReconcileReport) -> bool:
        """Query one task; False if the API did not answer."""
        assert entry.task_id is not None  # noqa: S101 - for the type checker: it is ACCEPTED
        prediction, answered = None, True
        report.asked += 1
        self._tell(ReconcileEvent("reconcile.asked", entry.task_id, entry.key))
        try:
            prediction = await self._calls.result(entry.task_id)
        except NotFound:
            prediction = self._forgotten(entry)
        except (RateLimited, AuthFailed):
            raise
        except SubmitterError as error:
            # The error may concern this task only, so the others are still queried.
            self._delivery.count(error, report)
            answered = not isinstance(error, Unavailable)
        if prediction and has_ended(prediction):
            await self._delivery.end(prediction, entry, report)
        else:
            wait = self._schedule.again(entry.asks, webhook=entry.webhook, random=self._random)
            await self._ledger.postpone(entry.key, self._clock() + wait)
        return answered

    def _forgotten(self, entry: Entry) -> Prediction | None:
        """The result of a task that the API does not know: deleted, if it is older than 7 days."""
        if self._clock() - entry.sent_at <= API_RETENTION_S:
            return None
        error = "the API no longer knows this task; it keeps them for 7 days"
        return Prediction.parse(
            {"id": entry.task_id, "model": entry.model, "status": "deleted", "error": error}
        )
