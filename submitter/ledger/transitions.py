"""State transitions of the ledger, written once for all backends.

The functions are pure: entries in, changed entries out. `TransactionalLedger` makes the port's
writing methods of them: each loads entries from a backend's `Transaction`, applies a transition and
saves what changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from submitter.ledger.base import (
    MAX_PAUSE_S,
    OPEN,
    RATE_WINDOW_S,
    Entry,
    Intent,
    IntentWritten,
    Ledger,
    LimitReached,
    Limits,
    Result,
    State,
)
from submitter.prediction import Prediction

R = TypeVar("R")

MAX_PURGE_STEP = 500
"""Entries that one transaction of `purge` removes: it holds up others for a few milliseconds."""

_NOT_ITS_TASK = "the task that it was taken for is another submission's"


def paused(until: float, now: float) -> float:
    """End of the pause in force; 0 for one that was written before the clock was set back."""
    return until if until <= now + MAX_PAUSE_S else 0.0


def intend(entry: Entry | None, intent: Intent, now: float) -> Entry:
    """A new entry, or a REJECTED one written again."""
    return Entry(
        key=intent.key,
        model=intent.model,
        input=intent.input,
        digest=intent.digest,
        until=intent.until,
        state=State.INTENDED,
        tries=entry.tries + 1 if entry else 1,
        sent_at=now,
        context=intent.context,
        webhook=intent.webhook,
        cost=intent.cost,
        ask_at=intent.until,
    )


def accept(
    entry: Entry,
    holders: Sequence[Entry],
    prediction: Prediction,
    now: float,
    *,
    expected_at: float,
    guessed: bool,
) -> list[Entry]:
    """The entries that change; the accepted one first.

    Args:
        entry: to be accepted.
        holders: other entries that have this task.
        prediction: as for `Ledger.accept`, like the rest.
        now: Unix seconds.
        expected_at: Unix seconds.
        guessed: the task was found in the history.
    """
    if entry.state is State.FINISHED:
        return []
    if guessed and (entry.state is State.ACCEPTED or holders):
        return []
    accepted = replace(
        entry,
        state=State.ACCEPTED,
        task_id=prediction.id,
        guessed=guessed,
        accepted_at=now,
        expected_at=expected_at,
        ask_at=expected_at,
        asks=0,
        reason=None,
        status=prediction.status,
    )
    return [accepted, *(_lose_guess(one, now) for one in holders if _only_guessed(one))]


def import_task(prediction: Prediction, now: float, *, expected_at: float, webhook: bool) -> Entry:
    """An entry for a task that another program submitted, at the time of its creation."""
    created = prediction.created_at
    sent_at = min(created.timestamp(), now) if created else now
    return Entry(
        key=f"task:{prediction.id}",
        model=prediction.model or "",
        input=prediction.input or {},
        digest="",
        until=now,
        state=State.ACCEPTED,
        tries=0,
        sent_at=sent_at,
        webhook=webhook,
        task_id=prediction.id,
        accepted_at=sent_at,
        expected_at=expected_at,
        ask_at=expected_at,
        status=prediction.status,
    )


def mark_unknown(entry: Entry, reason: str, ask_at: float) -> Entry:
    """INTENDED to UNKNOWN; any other state stays."""
    if entry.state is not State.INTENDED:
        return entry
    return replace(entry, state=State.UNKNOWN, reason=reason, ask_at=ask_at)


def reject(entry: Entry, reason: str) -> Entry:
    """INTENDED or UNKNOWN to REJECTED; any other state stays."""
    if entry.state not in (State.INTENDED, State.UNKNOWN):
        return entry
    return replace(entry, state=State.REJECTED, reason=reason, ask_at=None)


def finish(
    named: Entry | None, holders: Sequence[Entry], result: Result, now: float
) -> list[Entry]:
    """The entries that change; those that become FINISHED have no place yet.

    Args:
        named: the entry of the result's key.
        holders: other entries that have its task: by a guess, or because it was imported.
        result: of the task.
        now: Unix seconds.
    """
    changed = []
    if named:
        # A reconciler knows no more of the task than the guess it asked the API about.
        guessed = named.guessed and named.task_id == result.prediction.id
        changed.append(_finish(named, result, now, guessed=guessed))
    for one in holders:
        if named and _only_guessed(one):
            changed.append(_lose_guess(one, now))
        else:
            changed.append(_finish(one, result, now, guessed=one.guessed))
    before = [named, *holders] if named else holders
    return [after for was, after in zip(before, changed, strict=True) if after is not was]


def _finish(entry: Entry, result: Result, now: float, *, guessed: bool) -> Entry:
    if entry.state is State.FINISHED:
        # A second task of the same key may be in the inbox while the first is not.
        if result.delivered and not entry.delivered and entry.task_id == result.prediction.id:
            return replace(entry, delivered=True)
        return entry
    return replace(
        entry,
        state=State.FINISHED,
        task_id=result.prediction.id,
        guessed=guessed,
        ask_at=None,
        reason=None,
        status=result.prediction.status,
        finished_at=now,
        prediction=result.prediction,
        delivered=result.delivered,
    )


def _only_guessed(entry: Entry) -> bool:
    return entry.guessed and entry.state in OPEN


def _lose_guess(entry: Entry, now: float) -> Entry:
    """UNKNOWN again: its own task is still to be found."""
    return replace(
        entry,
        state=State.UNKNOWN,
        task_id=None,
        guessed=False,
        accepted_at=None,
        expected_at=None,
        ask_at=now,
        asks=0,
        reason=_NOT_ITS_TASK,
        status=None,
    )


class Transaction(ABC):
    """Entries inside one transaction of a backend; no other writer runs beside it.

    Every method sees what the transaction has written before. They are coroutines for PostgreSQL's
    sake; those of the other backends never suspend, so that `run_now` runs an operation at once.
    """

    @abstractmethod
    async def find(self, key: str) -> Entry | None:
        """The entry of a key."""

    @abstractmethod
    async def holders(self, task_id: str) -> list[Entry]:
        """The entries that have a task, in order of arrival."""

    @abstractmethod
    async def due(self, now: float, limit: int, keys: Sequence[str] | None) -> list[Entry]:
        """Open entries whose `ask_at` has passed, the longest due first."""

    @abstractmethod
    async def usage(self, limits: Limits, now: float) -> tuple[int, float | None]:
        """Usage of the limits.

        Returns:
            The number of open entries, counted up to `limits.in_flight`; and when the
            `limits.rate`-th last entry was sent, within `RATE_WINDOW_S` of `now` (times ahead of it
            are from before the clock was set back).
        """

    @abstractmethod
    async def insert(self, entry: Entry) -> None:
        """Save a new entry, or one that replaces a REJECTED one, and notify subscribers."""

    @abstractmethod
    async def update(
        self, entry: Entry, *, rejected_at: float | None = None, notify: bool = True
    ) -> None:
        """Save what changed of an entry after its intent.

        Args:
            entry: with the new values.
            rejected_at: Unix seconds, of one that was just rejected.
            notify: subscribers are told.
        """

    @abstractmethod
    async def next_place(self) -> int:
        """The next place in the order of finishing, which is taken by this."""

    @abstractmethod
    async def paused_until(self) -> float:
        """Unix seconds, as `pause` saved it."""

    @abstractmethod
    async def pause(self, until: float) -> None:
        """Save the end of a pause."""

    @abstractmethod
    async def upload(self, digest: str, url: str, now: float) -> None:
        """Save an upload, over an earlier one of the same content."""

    @abstractmethod
    async def purge(self, before: float, limit: int) -> tuple[int, bool]:
        """Remove up to `limit` old entries and uploads.

        Returns:
            The number of entries removed, and whether more may be left.
        """


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """Work inside a transaction.

    Attributes:
        run: the work; it may run again if the first transaction failed.
        keys: of all entries that it finds by key.
        tasks: ids of all tasks whose entries it finds.
    """

    run: Callable[[Transaction], Coroutine[Any, Any, R]]
    keys: Sequence[str] = ()
    tasks: Sequence[str] = ()


def run_now(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for something")


class TransactionalLedger(Ledger):
    """The writing methods of the port, over a backend's transactions.

    Attributes:
        max_purge_step: entries that one transaction of `purge` removes.
    """

    max_purge_step = MAX_PURGE_STEP

    @abstractmethod
    async def _transact(self, operation: Operation[R]) -> R:
        """Run an operation in a transaction."""

    async def _worth_finishing(self, results: Sequence[Result]) -> bool:
        """False if no result would change an entry, so that no transaction is needed."""
        return bool(results)

    async def _any_due(self, now: float, keys: Sequence[str] | None) -> bool:  # noqa: ARG002
        """False if nothing is due, so that no transaction is needed."""
        return keys is None or bool(keys)

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        async def run(entries: Transaction) -> IntentWritten | LimitReached:
            entry = await entries.find(intent.key)
            if entry and entry.state is not State.REJECTED:
                return IntentWritten(entry, fresh=False)
            reached = await _limit_reached(entries, limits, now)
            if reached:
                return reached
            written = intend(entry, intent, now)
            await entries.insert(written)
            return IntentWritten(written, fresh=True)

        return await self._transact(Operation(run, keys=[intent.key]))

    async def accept(
        self,
        key: str,
        prediction: Prediction,
        now: float,
        *,
        expected_at: float,
        guessed: bool = False,
    ) -> Entry:
        async def run(entries: Transaction) -> Entry:
            entry = await entries.find(key)
            if entry is None:
                raise KeyError(key)
            changed = accept(
                entry,
                await _others(entries, prediction.id, entry),
                prediction,
                now,
                expected_at=expected_at,
                guessed=guessed,
            )
            for each in changed:
                await entries.update(each)
            return changed[0] if changed else entry

        return await self._transact(Operation(run, keys=[key], tasks=[prediction.id]))

    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        imported = import_task(prediction, now, expected_at=expected_at, webhook=webhook)

        async def run(entries: Transaction) -> Entry:
            holders = await entries.holders(prediction.id)
            known = min(holders, key=lambda entry: entry.guessed, default=None)
            known = known or await entries.find(imported.key)
            if known is None:
                await entries.insert(imported)
            return known or imported

        return await self._transact(Operation(run, keys=[imported.key], tasks=[prediction.id]))

    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:  # noqa: ARG002
        async def run(entries: Transaction) -> None:
            entry = await entries.find(key)
            if entry and (unknown := mark_unknown(entry, reason, ask_at)) is not entry:
                await entries.update(unknown)

        await self._transact(Operation(run, keys=[key]))

    async def reject(self, key: str, reason: str, now: float) -> bool:
        async def run(entries: Transaction) -> bool:
            entry = await entries.find(key)
            if entry is None or (rejected := reject(entry, reason)) is entry:
                return False
            await entries.update(rejected, rejected_at=now)
            return True

        return await self._transact(Operation(run, keys=[key]))

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        if not await self._worth_finishing(results):
            return []

        async def run(entries: Transaction) -> list[Entry]:
            finished = []
            for result in results:
                named = await entries.find(result.key) if result.key is not None else None
                holders = await _others(entries, result.prediction.id, named)
                for changed in finish(named, holders, result, now):
                    if changed.state is State.FINISHED and not changed.place:
                        finished.append(replace(changed, place=await entries.next_place()))
                        await entries.update(finished[-1])
                    else:
                        await entries.update(changed)
            return finished

        keys = [result.key for result in results if result.key is not None]
        tasks = [result.prediction.id for result in results]
        return await self._transact(Operation(run, keys, tasks))

    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        if not await self._any_due(now, keys):
            return []

        async def run(entries: Transaction) -> list[Entry]:
            found = await entries.due(now, limit, keys)
            taken = [replace(entry, ask_at=now + hold) for entry in found]
            for entry in taken:
                await entries.update(entry, notify=False)
            return taken

        return await self._transact(Operation(run))

    async def postpone(self, key: str, ask_at: float) -> None:
        async def run(entries: Transaction) -> None:
            entry = await entries.find(key)
            if entry and entry.state in OPEN:
                postponed = replace(entry, ask_at=ask_at, asks=entry.asks + 1)
                await entries.update(postponed, notify=False)

        await self._transact(Operation(run, keys=[key]))

    async def pause(self, until: float) -> None:
        async def run(entries: Transaction) -> None:
            earlier = paused(await entries.paused_until(), until)
            await entries.pause(max(earlier, until))

        await self._transact(Operation(run))

    async def upload(self, digest: str, url: str, now: float) -> None:
        await self._transact(Operation(lambda entries: entries.upload(digest, url, now)))

    async def purge(self, before: float) -> int:
        count, more = 0, True
        while more:
            removed, more = await self._transact(
                Operation(lambda entries: entries.purge(before, self.max_purge_step))
            )
            count += removed
        return count


async def _limit_reached(entries: Transaction, limits: Limits, now: float) -> LimitReached | None:
    until = paused(await entries.paused_until(), now)
    if limits != Limits():
        open_count, sent_at = await entries.usage(limits, now)
        if limits.in_flight is not None and open_count >= limits.in_flight:
            return LimitReached(None)
        if limits.rate is not None and sent_at is not None:
            until = max(until, sent_at + RATE_WINDOW_S)
    return LimitReached(until) if until > now else None


async def _others(entries: Transaction, task_id: str, entry: Entry | None) -> list[Entry]:
    """The entries that have a task, without this one."""
    holders = await entries.holders(task_id)
    return [holder for holder in holders if entry is None or holder.key != entry.key]
