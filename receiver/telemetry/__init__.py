"""What happened, told to hooks: the log and the metrics are two of them.

Everything the receiver reports passes here as one frozen object, so that a body, a prompt, a
token or a secret has no field to leak through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class TelemetryEvent(NamedTuple):
    """One thing that happened.

    Attributes:
        name: a dotted name in the past tense: `delivery.accepted`, `delivery.rejected`,
            `delivery.failed`, `dispatch.settled`, `dispatch.lost` (another owns it by now),
            `dispatcher.failed`, `handler.paused`, `handler.failed` (to close), `store.failed`,
            `prediction.contradicted`, `follower.failed` (the ledger does not know of results),
            `reconcile.asked`, `reconcile.stored` (in the inbox), `reconcile.found`,
            `reconcile.failed`, `submission.settled`, `submission.rejected` (nothing was created).
        source: the source's name.
        event_id: the event's id.
        type: the event's type.
        handler: the handler's name.
        attempt: its number, from 1.
        outcome: of a dispatch: `done`, `retry`, `dead`, `released`.
        result: of a delivery: `new`, `duplicate`, or the reason of its rejection.
        seconds: how long it took.
        error: one line, bounded; never holds a body.
        status: the HTTP status, where there was a request.
        request_id: of the request.
        until: Unix seconds, of a pause or a retry.
        skew: seconds between our clock and the sender's, of a stale delivery.
        task_id: the API's id of a task.
        submission: the key of a submission.
        other: the type of the event that an event contradicts.
        number: of results, where several are meant.
    """

    name: str
    source: str | None = None
    event_id: str | None = None
    type: str | None = None
    handler: str | None = None
    attempt: int | None = None
    outcome: str | None = None
    result: str | None = None
    seconds: float | None = None
    error: str | None = None
    status: int | None = None
    request_id: str | None = None
    until: float | None = None
    skew: float | None = None
    task_id: str | None = None
    submission: str | None = None
    other: str | None = None
    number: int | None = None


Hook = Callable[[TelemetryEvent], None]
"""Takes what happened; must not block and must not raise."""
