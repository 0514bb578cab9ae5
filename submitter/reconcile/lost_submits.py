"""Submits whose response was lost: their tasks are looked up in the API's history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from submitter.api.client import ApiClient
from submitter.errors import (
    AuthFailed,
    LedgerUnavailable,
    RateLimited,
    SubmitterError,
    Unavailable,
)
from submitter.ledger.base import MAX_OPEN_ENTRIES, Entry, Ledger, State
from submitter.prediction import Prediction
from submitter.reconcile.deliver import ReconcileEvent, ReconcileReport, ResultDelivery, has_ended
from submitter.reconcile.history_match import clusters, match
from submitter.reconcile.schedule import API_RETENTION_S, Schedule

MAX_UNANSWERED = 2
"""Unanswered looks after which a round looks for no more lost submits."""


class LostSubmits:
    """Finds the tasks of UNKNOWN submits, or rejects the submits.

    Args:
        calls: the API client.
        ledger: open.
        schedule: times of the looks.
        delivery: receives tasks that have finished already.
        tell: called with each step.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        calls: ApiClient,
        ledger: Ledger,
        schedule: Schedule,
        delivery: ResultDelivery,
        *,
        tell: Callable[[ReconcileEvent], None],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._schedule = schedule
        self._delivery = delivery
        self._tell = tell
        self._clock = clock
        self._random = random

    async def settle(self, due: Sequence[Entry], report: ReconcileReport) -> None:
        """Look for submissions without a task; a look that fails does not count as one.

        Raises:
            RateLimited: too many requests.
            AuthFailed: it does not accept the key.
            LedgerUnavailable: the ledger cannot be read or written.
        """
        if not due:
            return
        keys = {entry.key for entry in due}
        others = [
            e for e in await self._ledger.open_entries(limit=MAX_OPEN_ENTRIES) if e.key not in keys
        ]
        rivals = [entry for entry in others if entry.state is State.INTENDED]
        # Submits that are not due yet are matched too: a task may belong to them.
        lost = [*due, *(entry for entry in others if entry.state is State.UNKNOWN)]
        silent = 0
        for cluster in clusters(lost, skew=self._schedule.skew):
            due_entries = [entry for entry in cluster if entry.key in keys]
            if not due_entries:
                continue
            same_model = [rival for rival in rivals if rival.model == due_entries[0].model]
            try:
                await self._look(due_entries, cluster, same_model, report)
            except (RateLimited, AuthFailed, LedgerUnavailable):
                raise
            except SubmitterError as error:
                # The error may concern this model only, so the others are still searched.
                self._delivery.count(error, report)
                silent += isinstance(error, Unavailable)
                if silent == MAX_UNANSWERED:
                    return

    async def _look(
        self,
        due: Sequence[Entry],
        cluster: Sequence[Entry],
        rivals: Sequence[Entry],
        report: ReconcileReport,
    ) -> None:
        now, skew = self._clock(), self._schedule.skew
        history = self._calls.history(
            model=due[0].model,
            created_after=min(entry.sent_at for entry in cluster) - skew,
            created_before=max(entry.until for entry in cluster) + skew,
        )
        tasks = [task async for task in history]
        taken = await self._ledger.find_tasks([task.id for task in tasks])
        free = [task for task in tasks if task.id not in taken]
        # In a thread: many submits and tasks take long to match.
        looked = await asyncio.to_thread(match, cluster, free, rivals=rivals, skew=skew)
        for entry in cluster:
            if task := looked.found.get(entry.key):
                await self._found(entry, task, report)
        for entry in due:
            if entry.key not in looked.found:
                await self._not_found(entry, now, report, clear=entry.key not in looked.unclear)

    async def _found(self, entry: Entry, task: Prediction, report: ReconcileReport) -> None:
        now = self._clock()
        known = await self._ledger.durations(entry.model)
        expected = now + self._schedule.expected(known, webhook=entry.webhook)
        accepted = await self._ledger.accept(
            entry.key, task, now, expected_at=expected, guessed=True
        )
        # Its webhook may have arrived meanwhile, or one of another submit that names this task.
        if accepted.task_id != task.id:
            return
        report.settled += 1
        self._tell(ReconcileEvent("submission.settled", task.id, entry.key))
        if has_ended(task):
            await self._delivery.end(task, accepted, report)

    async def _not_found(
        self, entry: Entry, now: float, report: ReconcileReport, *, clear: bool
    ) -> None:
        wait = self._schedule.look(entry.asks + 1)
        # The history no longer reaches back to it.
        gone = now - entry.until > API_RETENTION_S
        if entry.state is State.INTENDED:
            await self._ledger.mark_unknown(
                entry.key, "nobody recorded its answer", now, ask_at=now + self._schedule.soon
            )
        if gone or (wait is None and clear):
            # A look may take long: meanwhile it may have been rejected and sent again.
            if (await self._ledger.find([entry.key]))[entry.key].tries != entry.tries:
                return
            reason = "the API's history does not have it: nothing was created"
            if gone:
                reason = "its answer was lost, and the API's history no longer reaches back to it"
            if await self._ledger.reject(entry.key, reason, now):
                report.rejected += 1
                self._tell(ReconcileEvent("submission.rejected", key=entry.key))
            return
        if wait is None:
            # Not clear yet: a webhook or a later look may settle it.
            wait = self._schedule.again(entry.asks, webhook=True, random=self._random)
        await self._ledger.postpone(entry.key, now + wait)
