"""Telemetry: one frozen event for everything the receiver reports, passed to hooks.

The log and the metrics are two such hooks. A body, a prompt, a token or a secret cannot leak,
because an event has no field for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class TelemetryEvent(NamedTuple):
    """An event for log and metrics.

    Attributes:
        name: a dotted name in the past tense: `delivery.accepted`, `delivery.rejected`,
            `delivery.failed`, `dispatch.settled`, `dispatch.lost` (its lease went to another),
            `dispatcher.failed`, `handler.paused`, `handler.failed` (to close), `store.failed`,
            `prediction.contradicted`, `follower.failed` (the ledger was not updated),
            `reconcile.asked`, `reconcile.stored` (in the inbox), `reconcile.found`,
            `reconcile.failed`, `submission.settled`, `submission.rejected` (no task was created).
        source: the source's name.
        event_id: the event's id.
        type: the event's type.
        handler: the handler's name.
        attempt: number of the attempt, from 1.
        outcome: of a dispatch: `done`, `retry`, `dead`, `released`.
        result: of a delivery: `new`, `duplicate`, or the reason of its rejection.
        seconds: duration.
        error: one line of bounded length; never a body.
        status: the HTTP status, for requests.
        request_id: id of the request.
        until: Unix seconds: the end of a pause, or the time of a retry.
        skew: seconds from the timestamp of a stale delivery to now.
        task_id: the API's id of a task.
        submission: the key of a submission.
        other: the type of the other event of a contradiction.
        number: the number of results.
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
"""Called with each telemetry event; must neither block nor raise."""
