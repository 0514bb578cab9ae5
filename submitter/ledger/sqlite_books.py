"""The ledger's writes on an open connection, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from submitter.ledger import rows, transitions
from submitter.ledger.base import (
    RATE_WINDOW_S,
    Entry,
    Intent,
    IntentWritten,
    LimitReached,
    Limits,
    Result,
    State,
)
from submitter.ledger.schema import statements
from submitter.prediction import Prediction

SQL = statements()


def intend(
    connection: sqlite3.Connection, intent: Intent, limits: Limits, now: float
) -> IntentWritten | LimitReached:
    """Write an intent, where there is room."""
    entry = _find(connection, intent.key)
    if entry and entry.state is not State.REJECTED:
        return IntentWritten(entry, fresh=False)
    full = _full(connection, limits, now)
    if full:
        return full
    return IntentWritten(_write(connection, transitions.intend(entry, intent, now)), fresh=True)


def _full(connection: sqlite3.Connection, limits: Limits, now: float) -> LimitReached | None:
    if limits.in_flight is not None:
        values = {"limit": limits.in_flight}
        (count,) = connection.execute(SQL["count_open"], values).fetchone()
        if count >= limits.in_flight:
            return LimitReached(None)
    until = transitions.paused(_paused(connection), now)
    if limits.rate is not None:
        found = connection.execute(
            SQL["sent"], {"now": now, "window": RATE_WINDOW_S, "nth": limits.rate}
        ).fetchone()
        if found:
            until = max(until, found[0] + RATE_WINDOW_S)
    return LimitReached(until) if until > now else None


def accept(
    connection: sqlite3.Connection,
    key: str,
    prediction: Prediction,
    now: float,
    *,
    expected_at: float,
    guessed: bool,
) -> Entry:
    """Record the task that the API named."""
    entry = _find(connection, key)
    if entry is None:
        raise KeyError(key)
    changed = transitions.accept(
        entry,
        _holders(connection, prediction.id, but=entry.key),
        prediction,
        now,
        expected_at=expected_at,
        guessed=guessed,
    )
    for one in changed:
        _change(connection, one)
    return changed[0] if changed else entry


def import_task(
    connection: sqlite3.Connection,
    prediction: Prediction,
    now: float,
    *,
    expected_at: float,
    webhook: bool,
) -> Entry:
    """Take in a task that something else submitted."""
    adopted = transitions.import_task(prediction, now, expected_at=expected_at, webhook=webhook)
    holders = _holders(connection, prediction.id)
    known = min(holders, key=lambda entry: entry.guessed, default=None)
    return known or _find(connection, adopted.key) or _write(connection, adopted)


def mark_unknown(connection: sqlite3.Connection, key: str, reason: str, ask_at: float) -> None:
    """INTENDED becomes UNKNOWN."""
    entry = _find(connection, key)
    if entry and (doubted := transitions.mark_unknown(entry, reason, ask_at)) is not entry:
        _change(connection, doubted)


def reject(connection: sqlite3.Connection, key: str, reason: str, now: float) -> bool:
    """INTENDED or UNKNOWN becomes REJECTED."""
    entry = _find(connection, key)
    if entry is None or (rejected := transitions.reject(entry, reason)) is entry:
        return False
    _change(connection, rejected, now)
    return True


def finish(connection: sqlite3.Connection, results: Sequence[Result], now: float) -> list[Entry]:
    """Record results of tasks."""
    finished = []
    for result in results:
        named = _find(connection, result.key) if result.key is not None else None
        holders = _holders(connection, result.prediction.id, but=named.key if named else None)
        for changed in transitions.finish(named, holders, result, now):
            if changed.state is State.FINISHED and not changed.place:
                connection.execute(SQL["take_place"])
                _, place, _ = connection.execute(SQL["head"]).fetchone()
                finished.append(replace(changed, place=place))
                _change(connection, finished[-1], now)
            else:
                _change(connection, changed, changed.finished_at)
    return finished


def due(
    connection: sqlite3.Connection, now: float, hold: float, limit: int, keys: str | None
) -> list[Entry]:
    """Take open entries whose `ask_at` has come."""
    found = connection.execute(
        SQL["due" if keys is None else "due_of"], {"now": now, "limit": limit, "keys": keys}
    )
    taken = [replace(rows.read(row), ask_at=now + hold) for row in found.fetchall()]
    held = rows.texts([entry.key for entry in taken])
    connection.execute(SQL["hold"], {"until": now + hold, "keys": held})
    return taken


def pause(connection: sqlite3.Connection, until: float) -> None:
    """Let nobody intend before a time."""
    before = transitions.paused(_paused(connection), until)
    connection.execute(SQL["pause"], {"until": max(before, until)})


def purge(connection: sqlite3.Connection, before: float, limit: int) -> tuple[int, bool]:
    """One step: how many entries it removed, and whether more is left."""
    values = {"before": before, "limit": limit}
    entries = connection.execute(SQL["purge_entries"], values).rowcount
    uploads = connection.execute(SQL["purge_uploads"], values).rowcount
    return entries, limit in (entries, uploads)


def changes_so_far(connection: sqlite3.Connection) -> int:
    """The counter that grows with every change that somebody may wait for."""
    count: int = connection.execute(SQL["head"]).fetchone()[0]
    return count


def _paused(connection: sqlite3.Connection) -> float:
    until: float = connection.execute(SQL["head"]).fetchone()[2]
    return until


def _find(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(SQL["find"], {"keys": rows.texts([key])}).fetchone()
    return rows.read(row) if row else None


def _holders(connection: sqlite3.Connection, task_id: str, but: str | None = None) -> list[Entry]:
    """Entries that have this task, in order of arrival."""
    found = connection.execute(SQL["holders"], {"task_id": rows.text(task_id)}).fetchall()
    return [entry for entry in map(rows.read, found) if entry.key != but]


def _write(connection: sqlite3.Connection, entry: Entry) -> Entry:
    connection.execute(SQL["write"], rows.written(entry, None))
    connection.execute(SQL["changed"])
    return entry


def _change(connection: sqlite3.Connection, entry: Entry, ended_at: float | None = None) -> None:
    connection.execute(SQL["change"], rows.changed(entry, ended_at))
    connection.execute(SQL["changed"])
