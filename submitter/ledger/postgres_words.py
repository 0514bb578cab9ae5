"""What each word of the ledger does to the books, inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from submitter.ledger import transitions
from submitter.ledger.base import (
    OPEN,
    RATE_WINDOW_S,
    Entry,
    Intent,
    IntentWritten,
    LimitReached,
    Limits,
    Result,
    State,
)
from submitter.ledger.postgres_books import Books
from submitter.ledger.postgres_rows import text
from submitter.prediction import Prediction


async def intend(
    books: Books, intent: Intent, limits: Limits, now: float
) -> IntentWritten | LimitReached:
    """Write an intent, where there is room."""
    entry = books.find(intent.key)
    if entry and entry.state is not State.REJECTED:
        return IntentWritten(entry, fresh=False)
    full = await _full(books, limits, now)
    if full:
        return full
    return IntentWritten(books.write(transitions.intend(entry, intent, now)), fresh=True)


async def _full(books: Books, limits: Limits, now: float) -> LimitReached | None:
    until = transitions.paused(books.paused, now)
    if limits != Limits():
        ((count, sent_at),) = await books.fetch(
            "room",
            limits.in_flight or 0,
            max(limits.rate or 1, 1) - 1,
            now - RATE_WINDOW_S,
            now + RATE_WINDOW_S,
        )
        if limits.in_flight is not None and count >= limits.in_flight:
            return LimitReached(None)
        if limits.rate is not None and sent_at is not None:
            until = max(until, sent_at + RATE_WINDOW_S)
    return LimitReached(until) if until > now else None


async def accept(
    books: Books,
    key: str,
    prediction: Prediction,
    now: float,
    *,
    expected_at: float,
    guessed: bool,
) -> Entry:
    """Record the task that the API named."""
    entry = books.find(key)
    if entry is None:
        raise KeyError(key)
    changed = transitions.accept(
        entry,
        books.holders(prediction.id, but=entry.key),
        prediction,
        now,
        expected_at=expected_at,
        guessed=guessed,
    )
    for one in changed:
        books.change(one)
    return changed[0] if changed else entry


async def import_task(
    books: Books, prediction: Prediction, now: float, *, expected_at: float, webhook: bool
) -> Entry:
    """Take in a task that something else submitted."""
    adopted = transitions.import_task(prediction, now, expected_at=expected_at, webhook=webhook)
    known = min(books.holders(prediction.id), key=lambda entry: entry.guessed, default=None)
    return known or books.find(adopted.key) or books.write(adopted)


async def mark_unknown(books: Books, key: str, reason: str, ask_at: float) -> None:
    """INTENDED becomes UNKNOWN."""
    entry = books.find(key)
    if entry and (doubted := transitions.mark_unknown(entry, reason, ask_at)) is not entry:
        books.change(doubted)


async def reject(books: Books, key: str, reason: str, now: float) -> bool:
    """INTENDED or UNKNOWN becomes REJECTED."""
    entry = books.find(key)
    if entry is None or (rejected := transitions.reject(entry, reason)) is entry:
        return False
    books.change(rejected, now)
    return True


async def finish(books: Books, results: Sequence[Result], now: float) -> list[Entry]:
    """Record results of tasks."""
    finished = []
    for result in results:
        named = books.find(result.key) if result.key is not None else None
        holders = books.holders(result.prediction.id, but=named.key if named else None)
        for changed in transitions.finish(named, holders, result, now):
            if changed.state is State.FINISHED and not changed.place:
                books.place += 1
                finished.append(replace(changed, place=books.place))
                books.change(finished[-1], now)
            else:
                books.change(changed, changed.finished_at)
    return finished


async def due(
    books: Books, now: float, hold: float, limit: int, keys: Sequence[str] | None
) -> list[Entry]:
    """Take open entries whose `ask_at` has come."""
    if keys is None:
        found = await books.entries("due", now, limit)
    else:
        found = await books.entries("due_of", now, limit, [text(key) for key in keys])
    taken = [replace(entry, ask_at=now + hold) for entry in found]
    for entry in taken:
        books.note(entry)
    return taken


async def postpone(books: Books, key: str, ask_at: float) -> None:
    """Count one question, and set the time of the next."""
    entry = books.find(key)
    if entry and entry.state in OPEN:
        books.note(replace(entry, ask_at=ask_at, asks=entry.asks + 1))


async def pause(books: Books, until: float) -> None:
    """Let nobody intend before a time."""
    books.paused = max(transitions.paused(books.paused, until), until)


async def upload(books: Books, digest: str, url: str, now: float) -> None:
    """Remember where content was uploaded to."""
    await books.fetch("upload", text(digest), text(url), now)


async def purge(books: Books, before: float, limit: int) -> tuple[int, bool]:
    """One step: how many entries it removed, and whether more is left."""
    entries = await books.fetch("purge_entries", before, limit)
    uploads = await books.fetch("purge_uploads", before, limit)
    for (key,) in entries:
        books.forget(key)
    return len(entries), limit in (len(entries), len(uploads))
