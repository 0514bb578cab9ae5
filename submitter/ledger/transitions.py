"""What each word makes of an entry: pure, and the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from submitter.ledger.base import MAX_PAUSE_S, OPEN, Entry, Intent, Result, State
from submitter.prediction import Prediction

_NOT_ITS_TASK = "the task that it was taken for is another submission's"


def paused(until: float, now: float) -> float:
    """The end of the pause that holds; 0 for one from before a clock's step (F6)."""
    return until if until <= now + MAX_PAUSE_S else 0.0


def intend(entry: Entry | None, intent: Intent, now: float) -> Entry:
    """A new entry, or a REJECTED one anew."""
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
        prediction: see `Ledger.accept`, as are the rest.
        now: Unix seconds.
        expected_at: Unix seconds.
        guessed: as there.
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
    """An entry for a task of somebody else; sent when the API says that it was created."""
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
    """INTENDED to UNKNOWN; anything else as it was."""
    if entry.state is not State.INTENDED:
        return entry
    return replace(entry, state=State.UNKNOWN, reason=reason, ask_at=ask_at)


def reject(entry: Entry, reason: str) -> Entry:
    """INTENDED or UNKNOWN to REJECTED; anything else as it was."""
    if entry.state not in (State.INTENDED, State.UNKNOWN):
        return entry
    return replace(entry, state=State.REJECTED, reason=reason, ask_at=None)


def finish(
    named: Entry | None, holders: Sequence[Entry], result: Result, now: float
) -> list[Entry]:
    """The entries that change; those that are FINISHED by it have no place yet.

    Args:
        named: the entry of the result's key.
        holders: other entries that have its task: by a guess, or by adoption beside it.
        result: of the task.
        now: Unix seconds.
    """
    changed = []
    if named:
        # A reconciler knows no more of the task than the guess that it asked about.
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
    """Its own task is still to be found."""
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
