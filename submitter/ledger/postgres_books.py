"""The entries that a group of jobs is about: loaded once, changed in memory, written once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from submitter.ledger import rows
from submitter.ledger.base import Entry
from submitter.ledger.postgres_rows import CHANGING, COLUMNS, KEY, TASK_ID, Row, columns, row, text
from submitter.storage.postgres_pool import PostgresConnection

_NEW = 2**62
"""The order of what has none yet: after all that has."""


class Books:
    """What is known inside one transaction, which holds the lock of all who write.

    Attributes:
        changes: the counter of what somebody may wait for.
        place: the last that was given.
        paused: Unix seconds until when nobody intends.
    """

    def __init__(self, connection: PostgresConnection, sql: Mapping[str, str]) -> None:
        self._connection = connection
        self._sql = sql
        self._rows: dict[str, Row] = {}
        self._holders: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._unsaved: dict[str, bool] = {}
        self._head: tuple[int, int, float] = (0, 0, 0.0)
        self.changes, self.place, self.paused = self._head

    async def load(self, keys: Sequence[str], task_ids: Sequence[str]) -> None:
        """Take the lock, and find the entries."""
        head = await self._connection.fetchrow(self._sql["lock_head"])
        self.changes, self.place, self.paused = self._head = (head[0], head[1], head[2])
        if keys or task_ids:
            await self.entries("load", [text(key) for key in keys], [text(id_) for id_ in task_ids])

    def find(self, key: str) -> Entry | None:
        """The entry of a key that was loaded."""
        found = self._rows.get(text(key))
        return rows.read(found) if found else None

    def holders(self, task_id: str, but: str | None = None) -> list[Entry]:
        """The entries that have a task that was loaded, in order of arrival."""
        held = sorted((self._rows[key] for key in self._holders[text(task_id)]), key=_seq)
        return [entry for entry in map(rows.read, held) if entry.key != but]

    def write(self, entry: Entry) -> Entry:
        """A new entry, or one that is new but for its key."""
        self._put(entry, None, whole=True)
        self.changes += 1
        return entry

    def change(self, entry: Entry, ended_at: float | None = None) -> None:
        """What an entry has become, for all who wait."""
        self._put(entry, ended_at, whole=False)
        self.changes += 1

    def note(self, entry: Entry) -> None:
        """What an entry has become, which nobody waits for."""
        self._put(entry, None, whole=False)

    async def entries(self, name: str, *values: object) -> list[Entry]:
        """What a statement finds, with all that was changed so far."""
        found = await self.fetch(name, *values)
        for each in found:
            self._keep(each)
        return [rows.read(each) for each in found]

    async def fetch(self, name: str, *values: object) -> Sequence[Any]:
        """Rows that are no entries."""
        await self._flush()
        return await self._connection.fetch(self._sql[name], *values)

    def forget(self, key: str) -> None:
        """An entry that was removed."""
        if key in self._rows:
            self._holders[self._rows.pop(key)[TASK_ID]].pop(key, None)

    async def save(self, channel: str) -> None:
        """Write all that is not written, and tell others of it."""
        await self._flush()
        head = (self.changes, self.place, self.paused)
        if head != self._head:
            news = str(self.changes) if self.changes != self._head[0] else None
            await self._connection.fetch(self._sql["save_head"], *head, channel, news)

    def _put(self, entry: Entry, ended_at: float | None, *, whole: bool) -> None:
        before = self._rows.get(text(entry.key))
        seq = before[0] if before else _NEW + self.changes
        after = row(entry, seq, ended_at)
        self._keep(after)
        self._unsaved[after[KEY]] = whole or self._unsaved.get(after[KEY], False)

    def _keep(self, found: Row) -> None:
        self.forget(found[KEY])
        self._rows[found[KEY]] = found
        if found[TASK_ID] is not None:
            self._holders[found[TASK_ID]][found[KEY]] = None

    async def _flush(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        for name, names, whole in (("write", COLUMNS[1:], True), ("change", CHANGING, False)):
            changed = [self._rows[key] for key, is_whole in unsaved.items() if is_whole is whole]
            if changed:
                await self._connection.execute(self._sql[name], *columns(changed, names))


def _seq(found: Row) -> int:
    return int(found[0])
