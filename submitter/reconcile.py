"""Finds what nobody told: results whose webhook never came, and tasks whose answer was lost.

It asks sparingly: a task only when it is overdue, with growing distances, and no two askers the
same one; and it stops asking where the API says that it is asked too much.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Callable, Sequence

from submitter.calls import Calls
from submitter.errors import (
    ApiError,
    AuthFailed,
    NotFound,
    RateLimited,
    SubmitterError,
    Unavailable,
)
from submitter.findings import Deliver, Found, Inbox, Report, Told
from submitter.ledger.base import Entry, Ledger, Result, State
from submitter.lost import match
from submitter.prediction import Prediction, Status
from submitter.schedule import Schedule

KEPT = 7 * 86400.0
"""Seconds for which the API keeps a task."""

AT_ONCE = 4
"""Questions that are asked at one time."""

ALL = 1_000_000
"""More submissions than are ever open at once."""

SEVERAL = 100
"""Entries or tasks that are looked at together."""


class Reconciler:
    """Settles what the ledger still has open.

    Args:
        calls: of the API; entered by whoever made it.
        ledger: open.
        schedule: when to ask.
        deliver: hands results to the inbox; None where there is no inbox here: the ledger keeps
            them for a reconciler that has one.
        inbox: what the inbox has already, so that nobody asks the API for it.
        tell: told what happens.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        calls: Calls,
        ledger: Ledger,
        *,
        schedule: Schedule,
        deliver: Deliver | None = None,
        inbox: Inbox | None = None,
        tell: Callable[[Told], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._schedule = schedule
        self._deliver = deliver
        self._inbox = inbox
        self._tell = tell
        self._clock = clock
        self._random = random

    async def run(self) -> None:
        """Do rounds until cancelled; no failure ends it."""
        while True:
            try:
                await self.round()
                count = await self._ledger.overdue(self._clock())
                self._tell(Told("reconcile.overdue", count=count))
            except Exception as error:  # noqa: BLE001 - it must outlive a fault of ours too
                text = str(error) if isinstance(error, SubmitterError) else type(error).__name__
                self._tell(Told("reconcile.failed", error=text))
            await asyncio.sleep(self._schedule.tick)

    async def round(self, *, keys: Sequence[str] | None = None) -> Report:
        """Settle and ask whatever is due now.

        Args:
            keys: only these submissions; None: all.

        Raises:
            LedgerUnavailable: the ledger cannot be read or written.
        """
        report = Report()
        await self._hand_over(report)
        now = self._clock()
        due = await self._ledger.due(now, hold=self._schedule.hold, limit=SEVERAL, keys=keys)
        due = await self._without_known(due)
        doubtful = [entry for entry in due if entry.state is not State.ACCEPTED]
        running = [entry for entry in due if entry.state is State.ACCEPTED]
        try:
            await self._settle(doubtful, report)
            for start in range(0, len(running), AT_ONCE):
                asked = [self._ask(entry, report) for entry in running[start : start + AT_ONCE]]
                for error in await asyncio.gather(*asked, return_exceptions=True):
                    if error is not None:
                        raise error
        except (Unavailable, ApiError) as error:
            # The others would fail the same; they are due again after `hold`.
            if isinstance(error, RateLimited):
                wait = error.retry_after or self._schedule.pause(0, self._random)
                await self._ledger.pause(self._clock() + wait)
            self._count(error, report)
        return report

    async def compare_history(self, *, since: float, known: Inbox, dry_run: bool = False) -> Report:
        """Bring every result of the API's history that the inbox does not have.

        It also finds what other tools submitted.

        Args:
            since: Unix seconds.
            known: what the inbox has.
            dry_run: only count.

        Raises:
            ApiError: the API refused.
            Unavailable: it did not answer.
        """
        report, several = Report(), list[Prediction]()
        async for prediction in self._calls.history(created_after=since):
            if prediction.terminal:
                several.append(prediction)
            if len(several) == SEVERAL:
                await self._compare(several, known, report, dry_run=dry_run)
                several = []
        await self._compare(several, known, report, dry_run=dry_run)
        return report

    async def _compare(
        self, several: list[Prediction], known: Inbox, report: Report, *, dry_run: bool
    ) -> None:
        ids = [prediction.id for prediction in several]
        there = await known(ids)
        entries = await self._ledger.find_tasks(ids)
        for prediction in several:
            entry = entries.get(prediction.id)
            # What was asked for without a webhook is nobody's event.
            if prediction.id in there or (entry is not None and not entry.webhook):
                continue
            if dry_run:
                report.found += 1
                report.tasks.append(prediction.id)
            else:
                await self._end(prediction, entry, report)

    async def _hand_over(self, report: Report) -> None:
        """Give the inbox what a caller has found at its deadline."""
        if self._deliver is None:
            return
        for entry in await self._ledger.undelivered(self._clock() - self._schedule.soon):
            if entry.prediction is not None:
                await self._end(entry.prediction, entry, report)

    async def _without_known(self, due: Sequence[Entry]) -> list[Entry]:
        """Those whose result the inbox does not have already."""
        ids = [entry.task_id for entry in due if entry.task_id]
        if self._inbox is None or not ids:
            return list(due)
        there = await self._inbox(ids)
        results = [
            Result(there[entry.task_id], entry.key, delivered=True)
            for entry in due
            if entry.task_id and entry.task_id in there
        ]
        if results:
            await self._ledger.finish(results, self._clock())
        return [entry for entry in due if entry.task_id not in there]

    async def _settle(self, doubtful: Sequence[Entry], report: Report) -> None:
        """Look for lost submissions in the history, model by model."""
        now, skew = self._clock(), self._schedule.skew
        keys = {entry.key for entry in doubtful}
        rivals = [
            entry
            for entry in (await self._ledger.open_entries(limit=ALL) if doubtful else ())
            if entry.state is State.INTENDED and entry.key not in keys
        ]
        for model in sorted({entry.model for entry in doubtful}):
            mine = [entry for entry in doubtful if entry.model == model]
            tasks = [
                task
                async for task in self._calls.history(
                    model=model,
                    created_after=min(entry.sent_at for entry in mine) - skew,
                    created_before=max(entry.until for entry in mine) + skew,
                )
            ]
            taken = await self._ledger.find_tasks([task.id for task in tasks])
            free = [task for task in tasks if task.id not in taken]
            same_model = [rival for rival in rivals if rival.model == model]
            looked = match(mine, free, rivals=same_model, skew=skew)
            for entry in mine:
                if task := looked.found.get(entry.key):
                    await self._found(entry, task, report)
                else:
                    await self._not_found(entry, now, report, clear=entry.key not in looked.unclear)

    async def _found(self, entry: Entry, task: Prediction, report: Report) -> None:
        report.settled += 1
        self._tell(Told("submission.settled", task.id, entry.key))
        now = self._clock()
        known = await self._ledger.durations(entry.model)
        expected = now + self._schedule.expected(known, webhook=entry.webhook)
        accepted = await self._ledger.accept(
            entry.key, task, now, expected_at=expected, guessed=True
        )
        if task.terminal:
            await self._end(task, accepted, report)

    async def _not_found(self, entry: Entry, now: float, report: Report, *, clear: bool) -> None:
        wait = self._schedule.look(entry.asks)
        if entry.state is State.INTENDED:
            await self._ledger.doubt(
                entry.key, "nobody recorded its answer", now, ask_at=now + self._schedule.soon
            )
        if wait is None and clear:
            reason = "the API's history does not have it: nothing was created"
            if await self._ledger.reject(entry.key, reason, now):
                report.rejected += 1
                self._tell(Told("submission.rejected", key=entry.key))
        else:
            # What is not clear, a webhook may tell, or a later look.
            again = self._schedule.again(entry.asks, webhook=True, random=self._random)
            await self._ledger.postpone(entry.key, now + (again if wait is None else wait))

    async def _ask(self, entry: Entry, report: Report) -> None:
        assert entry.task_id is not None  # noqa: S101 - for the type checker: it is ACCEPTED
        prediction = None
        report.asked += 1
        self._tell(Told("reconcile.asked", entry.task_id, entry.key))
        try:
            prediction = await self._calls.result(entry.task_id)
        except NotFound:
            prediction = self._forgotten(entry)
        except (RateLimited, AuthFailed):
            raise
        except ApiError as error:
            # Something about this task, which is no reason to spare the others.
            self._count(error, report)
        if prediction and (prediction.terminal or prediction.status == Status.DELETED):
            await self._end(prediction, entry, report)
        else:
            wait = self._schedule.again(entry.asks, webhook=entry.webhook, random=self._random)
            await self._ledger.postpone(entry.key, self._clock() + wait)

    def _forgotten(self, entry: Entry) -> Prediction | None:
        """What to believe of a task that the API does not know, or no longer."""
        if self._clock() - entry.sent_at <= KEPT:
            return None
        error = "the API no longer knows this task; it keeps them for 7 days"
        return Prediction.parse(
            {"id": entry.task_id, "model": entry.model, "status": "deleted", "error": error}
        )

    async def _end(self, prediction: Prediction, entry: Entry | None, report: Report) -> None:
        """Bring a result to the inbox, where there is one, and then to the ledger."""
        key, context = (entry.key, entry.context) if entry else (None, None)
        # Whoever asked for no webhook wants no event, and of a task that is gone there is none.
        unwanted = (entry is not None and not entry.webhook) or prediction.status == Status.DELETED
        new = False
        if self._deliver is not None and not unwanted:
            new = await self._deliver(Found(prediction, context, key))
        result = Result(prediction, key, delivered=unwanted or self._deliver is not None)
        finished = await self._ledger.finish([result], self._clock())
        if new or finished:
            report.found += 1
            report.tasks.append(prediction.id)
            self._tell(Told("reconcile.found", prediction.id, key))

    def _count(self, error: Exception, report: Report) -> None:
        report.failed += 1
        report.error = str(error)
        self._tell(Told("reconcile.failed", error=str(error)))
