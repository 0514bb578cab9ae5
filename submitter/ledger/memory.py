"""Reference ledger: plain dictionaries, with which the other backends are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy

from submitter.errors import LedgerUnavailable
from submitter.ledger.base import OPEN, RATE_WINDOW_S, Entry, Limits, State
from submitter.ledger.transitions import Operation, R, Transaction, TransactionalLedger
from submitter.prediction import Status
from submitter.storage.notify import Subscribers


class MemoryLedger(TransactionalLedger):
    """Ledger in this process's memory, and gone with it; for tests and for comparison.

    One event loop uses it. No method suspends, so each is atomic.
    """

    def __init__(self) -> None:
        self._entries = _MemoryTransaction()
        self._subscriptions: list[Callable[[], None]] = []
        self._opened = False

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        """Answer no more; `open` brings everything back but the subscriptions."""
        self._opened = False
        while self._subscriptions:
            self._subscriptions.pop()()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._check()
        end = self._entries.subscribers.add(wake)
        self._subscriptions.append(end)
        return end

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        found = self._all()
        return {key: deepcopy(found[key]) for key in keys if key in found}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        self._check()
        found = {}
        for task_id in task_ids:
            holders = await self._entries.holders(task_id)
            if holders:
                found[task_id] = min(holders, key=lambda entry: entry.guessed)
        return found

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        found = _open(self._all().values())
        return _first(limit, found, lambda entry: entry.sent_at)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        later = (entry for entry in self._finished() if entry.place > after)
        return _first(limit, later, lambda entry: entry.place)

    async def last_place(self) -> int:
        self._check()
        return self._entries.last_place

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        missing = (
            entry
            for entry in self._finished()
            if entry.webhook and not entry.delivered and _finished_at(entry) < before
        )
        return _first(limit, missing, _finished_at)

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        completed = (
            entry
            for entry in self._finished()
            if entry.model == model
            and entry.status == Status.COMPLETED
            and entry.accepted_at is not None
        )
        latest = _first(limit, completed, lambda entry: -entry.place)
        return [_finished_at(entry) - (entry.accepted_at or 0.0) for entry in latest]

    async def overdue(self, now: float) -> int:
        return sum(
            entry.expected_at is not None and entry.expected_at < now
            for entry in _open(self._all().values())
        )

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        self._check()
        url, at = self._entries.uploads.get(digest, (None, 0.0))
        return url if at > after else None

    async def _transact(self, operation: Operation[R]) -> R:
        self._check()
        return await operation.run(self._entries)

    def _check(self) -> None:
        if not self._opened:
            raise LedgerUnavailable("the ledger is not open")

    def _all(self) -> dict[str, Entry]:
        self._check()
        return self._entries.by_key

    def _finished(self) -> Iterable[Entry]:
        return (entry for entry in self._all().values() if entry.state is State.FINISHED)


class _MemoryTransaction(Transaction):
    """The entries; what goes in and out are copies, which share nothing with them."""

    def __init__(self) -> None:
        self.by_key: dict[str, Entry] = {}
        self.uploads: dict[str, tuple[str, float]] = {}
        self.last_place = 0
        self.subscribers = Subscribers()
        self._rejected_at: dict[str, float] = {}
        self._paused_until = 0.0

    async def find(self, key: str) -> Entry | None:
        return deepcopy(self.by_key.get(key))

    async def holders(self, task_id: str) -> list[Entry]:
        return [deepcopy(entry) for entry in self.by_key.values() if entry.task_id == task_id]

    async def due(self, now: float, limit: int, keys: Sequence[str] | None) -> list[Entry]:
        due = (
            entry
            for entry in _open(self.by_key.values())
            if entry.ask_at is not None
            and entry.ask_at <= now
            and (keys is None or entry.key in keys)
        )
        return _first(limit, due, lambda entry: entry.ask_at or 0.0)

    async def usage(self, limits: Limits, now: float) -> tuple[int, float | None]:
        sent = (entry.sent_at for entry in self.by_key.values())
        window = sorted(at for at in sent if now - RATE_WINDOW_S < at <= now + RATE_WINDOW_S)
        rate = max(limits.rate or 1, 1)
        return (
            len(list(_open(self.by_key.values()))),
            window[-rate] if len(window) >= rate else None,
        )

    async def insert(self, entry: Entry) -> None:
        await self.update(entry)

    async def update(
        self, entry: Entry, *, rejected_at: float | None = None, notify: bool = True
    ) -> None:
        self.by_key[entry.key] = deepcopy(entry)
        self._rejected_at.pop(entry.key, None)
        if rejected_at is not None:
            self._rejected_at[entry.key] = rejected_at
        if notify:
            self.subscribers.fire()

    async def next_place(self) -> int:
        self.last_place += 1
        return self.last_place

    async def paused_until(self) -> float:
        return self._paused_until

    async def pause(self, until: float) -> None:
        self._paused_until = until

    async def upload(self, digest: str, url: str, now: float) -> None:
        self.uploads[digest] = (url, now)

    async def purge(self, before: float, limit: int) -> tuple[int, bool]:  # noqa: ARG002 - all at once
        self.uploads = {
            digest: (url, at) for digest, (url, at) in self.uploads.items() if at >= before
        }
        ended_at = self._rejected_at | {
            entry.key: _finished_at(entry)
            for entry in self.by_key.values()
            if entry.state is State.FINISHED
        }
        old = [key for key, at in ended_at.items() if at < before]
        for key in old:
            del self.by_key[key]
            self._rejected_at.pop(key, None)
        return len(old), False


def _open(entries: Iterable[Entry]) -> Iterable[Entry]:
    return (entry for entry in entries if entry.state in OPEN)


def _first(limit: int, entries: Iterable[Entry], order: Callable[[Entry], float]) -> list[Entry]:
    return [deepcopy(entry) for entry in sorted(entries, key=order)[:limit]]


def _finished_at(entry: Entry) -> float:
    return entry.finished_at or 0.0
