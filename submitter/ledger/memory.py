"""The reference Ledger: plain dictionaries, easily seen to be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import replace

from submitter.errors import LedgerUnavailable
from submitter.ledger import transitions
from submitter.ledger.base import (
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
from submitter.prediction import Prediction, Status
from submitter.storage.notify import Subscribers


class MemoryLedger(Ledger):
    """A ledger in this process's memory, and gone with it; for tests and for comparison.

    One event loop uses it. No method awaits anything, so each is atomic as it stands.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._rejected_at: dict[str, float] = {}
        self._uploads: dict[str, tuple[str, float]] = {}
        self._subscribers = Subscribers()
        self._subscriptions: list[Callable[[], None]] = []
        self._place = 0
        self._paused = 0.0
        self._opened = False

    async def open(self) -> None:
        """Start to answer."""
        self._opened = True

    async def close(self) -> None:
        """Stop to answer; `open` brings everything back but the subscriptions."""
        self._opened = False
        while self._subscriptions:
            self._subscriptions.pop()()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Ledger.subscribe`."""
        self._check()
        end = self._subscribers.add(wake)
        self._subscriptions.append(end)
        return end

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        """Write an intent, where there is room."""
        self._check()
        entry = self._entries.get(intent.key)
        if entry and entry.state is not State.REJECTED:
            return IntentWritten(deepcopy(entry), fresh=False)
        full = self._full(limits, now)
        if full:
            return full
        return IntentWritten(self._put(transitions.intend(entry, intent, now)), fresh=True)

    async def accept(
        self,
        key: str,
        prediction: Prediction,
        now: float,
        *,
        expected_at: float,
        guessed: bool = False,
    ) -> Entry:
        """Record the task that the API named."""
        self._check()
        for changed in transitions.accept(
            self._entries[key],
            self._holders(prediction.id, but=key),
            prediction,
            now,
            expected_at=expected_at,
            guessed=guessed,
        ):
            self._put(changed)
        return deepcopy(self._entries[key])

    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        """Take in a task that something else submitted."""
        self._check()
        adopted = transitions.import_task(prediction, now, expected_at=expected_at, webhook=webhook)
        known = await self.find_tasks([prediction.id]) or await self.find([adopted.key])
        for entry in known.values():
            return entry
        return self._put(adopted)

    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:  # noqa: ARG002 - the port's
        """INTENDED becomes UNKNOWN."""
        self._check()
        if key in self._entries:
            self._put(transitions.mark_unknown(self._entries[key], reason, ask_at))

    async def reject(self, key: str, reason: str, now: float) -> bool:
        """INTENDED or UNKNOWN becomes REJECTED."""
        self._check()
        entry = self._entries.get(key)
        if entry is None or (rejected := transitions.reject(entry, reason)) is entry:
            return False
        self._rejected_at[key] = now
        self._put(rejected)
        return True

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        """Record results of tasks."""
        self._check()
        finished = []
        for result in results:
            named = self._entries.get(result.key) if result.key is not None else None
            holders = self._holders(result.prediction.id, but=result.key)
            for changed in transitions.finish(named, holders, result, now):
                if changed.state is State.FINISHED and not changed.place:
                    self._place += 1
                    finished.append(self._put(replace(changed, place=self._place)))
                else:
                    self._put(changed)
        return finished

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Entries by key."""
        self._check()
        return {key: deepcopy(self._entries[key]) for key in keys if key in self._entries}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        """Entries by task id; one that is no guess goes first."""
        self._check()
        found = {}
        for task_id in task_ids:
            holders = sorted(self._holders(task_id), key=lambda entry: entry.guessed)
            if holders:
                found[task_id] = deepcopy(holders[0])
        return found

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        """Entries that are open."""
        self._check()
        return _first(limit, self._open(), lambda entry: entry.sent_at)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        """FINISHED entries whose place is greater."""
        self._check()
        later = (entry for entry in self._finished() if entry.place > after)
        return _first(limit, later, lambda entry: entry.place)

    async def last_place(self) -> int:
        """The place that was given last."""
        self._check()
        return self._place

    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        """Take open entries whose `ask_at` has come."""
        self._check()
        due = (
            entry
            for entry in self._open()
            if entry.ask_at is not None
            and entry.ask_at <= now
            and (keys is None or entry.key in keys)
        )
        found = _first(limit, due, lambda entry: entry.ask_at or 0.0)
        return [self._put(replace(entry, ask_at=now + hold)) for entry in found]

    async def postpone(self, key: str, ask_at: float) -> None:
        """Count one question, and set the time of the next."""
        self._check()
        entry = self._entries.get(key)
        if entry and entry.state in OPEN:
            self._put(replace(entry, ask_at=ask_at, asks=entry.asks + 1))

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        """Entries whose result the inbox has not got."""
        self._check()
        missing = (
            entry
            for entry in self._finished()
            if entry.webhook and not entry.delivered and _ended(entry) < before
        )
        return _first(limit, missing, _ended)

    async def pause(self, until: float) -> None:
        """Let nobody intend before `until`."""
        self._check()
        self._paused = max(transitions.paused(self._paused, until), until)

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        """Seconds from accepted to finished, the latest first."""
        self._check()
        completed = (
            entry
            for entry in self._finished()
            if entry.model == model
            and entry.status == Status.COMPLETED
            and entry.accepted_at is not None
        )
        latest = _first(limit, completed, lambda entry: -entry.place)
        return [_ended(entry) - (entry.accepted_at or 0.0) for entry in latest]

    async def overdue(self, now: float) -> int:
        """How many open entries are past their time."""
        self._check()
        return sum(
            entry.expected_at is not None and entry.expected_at < now for entry in self._open()
        )

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        """The URL of content that was uploaded after a time."""
        self._check()
        url, at = self._uploads.get(digest, (None, 0.0))
        return url if at > after else None

    async def upload(self, digest: str, url: str, now: float) -> None:
        """Remember where content was uploaded to."""
        self._check()
        self._uploads[digest] = (url, now)

    async def purge(self, before: float) -> int:
        """Remove what is old."""
        self._check()
        self._uploads = {
            digest: (url, at) for digest, (url, at) in self._uploads.items() if at >= before
        }
        old = [entry.key for entry in self._finished() if _ended(entry) < before]
        old += [key for key, at in self._rejected_at.items() if at < before]
        for key in old:
            del self._entries[key]
            self._rejected_at.pop(key, None)
        return len(old)

    def _check(self) -> None:
        if not self._opened:
            raise LedgerUnavailable("the ledger is not open")

    def _full(self, limits: Limits, now: float) -> LimitReached | None:
        if limits.in_flight is not None and len(list(self._open())) >= limits.in_flight:
            return LimitReached(None)
        until = transitions.paused(self._paused, now)
        if limits.rate is not None:
            sent = (entry.sent_at for entry in self._entries.values())
            window = sorted(at for at in sent if now - RATE_WINDOW_S < at <= now + RATE_WINDOW_S)
            if window and len(window) >= limits.rate:
                until = max(until, window[-max(limits.rate, 1)] + RATE_WINDOW_S)
        return LimitReached(until) if until > now else None

    def _open(self) -> Iterable[Entry]:
        return (entry for entry in self._entries.values() if entry.state in OPEN)

    def _finished(self) -> Iterable[Entry]:
        return (entry for entry in self._entries.values() if entry.state is State.FINISHED)

    def _holders(self, task_id: str, but: str | None = None) -> list[Entry]:
        """Entries that have this task, in order of arrival."""
        held = (entry for entry in self._entries.values() if entry.task_id == task_id)
        return [entry for entry in held if entry.key != but]

    def _put(self, entry: Entry) -> Entry:
        """Keep an entry, wake who waits for it, and give a copy that shares nothing with it."""
        before = self._entries.get(entry.key)
        self._entries[entry.key] = deepcopy(entry)
        if entry.state is not State.REJECTED:
            self._rejected_at.pop(entry.key, None)
        if before is None or (before.state, before.task_id) != (entry.state, entry.task_id):
            self._subscribers.fire()
        return deepcopy(entry)


def _first(limit: int, entries: Iterable[Entry], order: Callable[[Entry], float]) -> list[Entry]:
    return [deepcopy(entry) for entry in sorted(entries, key=order)[:limit]]


def _ended(entry: Entry) -> float:
    return entry.finished_at or 0.0
