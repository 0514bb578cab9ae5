"""Events, dispatches and attempts as commands print them: JSON fields and table columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from receiver.event import Attempt, Dispatch, DispatchState, Event
from submitter.cli.run import plain
from submitter.prediction import JSON
from submitter.timestamps import rfc3339


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as their longest cell."""
    lines = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def event_fields(event: Event) -> dict[str, JSON]:
    """JSON fields of an event, without its private parts: body and context."""
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "model": event.model,
        "origin": event.origin.value,
        "webhook_id": event.webhook_id,
        "occurred_at": rfc3339(event.occurred_at),
        "received_at": rfc3339(event.received_at),
    }


def dispatch_fields(dispatch: Dispatch) -> dict[str, JSON]:
    """JSON fields of a dispatch."""
    return {
        "event_id": dispatch.event_id,
        "handler": dispatch.handler,
        "state": dispatch.state.value,
        "attempt": dispatch.attempt,
        "due_at": rfc3339(dispatch.due_at) if dispatch.state.open else None,
        "waiting_for": list(dispatch.after) if dispatch.waiting else [],
        "error": dispatch.error,
        "result": dispatch.result,
        "settled_at": rfc3339(dispatch.settled_at),
    }


def attempt_fields(attempt: Attempt) -> dict[str, JSON]:
    """JSON fields of an attempt."""
    return {
        "handler": attempt.handler,
        "number": attempt.number,
        "owner": attempt.owner,
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": attempt.error,
    }


def states(dispatches: Mapping[str, DispatchState]) -> str:
    """The states of one event's dispatches, on one line."""
    return ", ".join(f"{name} {state.value}" for name, state in dispatches.items()) or "-"
