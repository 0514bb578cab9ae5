"""Rows of the SQL stores: values to columns and back, in the order of the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from receiver.event import (
    Attempt,
    Dead,
    Dispatch,
    DispatchState,
    Done,
    Event,
    Origin,
    Outcome,
    Released,
    RetryAt,
)
from receiver.stores.base import Listed
from submitter.prediction import JSON

EVENT_COLUMNS = 12
DISPATCH_COLUMNS = 12


def event_row(event: Event) -> tuple[Any, ...]:
    """The columns of `event` after `seq`."""
    context = event.context
    return (
        event.id,
        event.source,
        event.type,
        event.subject,
        event.model,
        None if context is None else json.dumps(context),
        event.body,
        event.origin.value,
        event.webhook_id,
        event.occurred_at,
        event.received_at,
    )


def read_event(row: Sequence[Any]) -> Event:
    """An event from all columns of `event`."""
    _, id, source, type, subject, model, context, body, origin, webhook_id, occurred, received = row
    return Event(
        id=id,
        source=source,
        type=type,
        subject=subject,
        model=model,
        context=None if context is None else json.loads(context),
        body=body or b"",
        origin=Origin(origin),
        webhook_id=webhook_id,
        occurred_at=occurred,
        received_at=received,
    )


def read_listed(row: Sequence[Any]) -> Listed:
    """A row of a listing, from all columns of `event` and the states of its dispatches as JSON."""
    states = {name: DispatchState(state) for name, state in json.loads(row[-1]).items()}
    return Listed(row[0], read_event(row[:-1]), states)


def read_dispatch(row: Sequence[Any], event_id: str) -> Dispatch:
    """A dispatch from all columns of `dispatch` and its event's id."""
    _, handler, state, attempt, tries, due, after, waiting, owner, error, result, settled = row
    return Dispatch(
        event_id=event_id,
        handler=handler,
        state=DispatchState(state),
        attempt=attempt,
        tries=tries,
        due_at=due,
        after=() if after == "[]" else tuple(json.loads(after)),
        waiting=bool(waiting),
        owner=owner,
        error=error,
        result=None if result is None else json.loads(result),
        settled_at=settled,
    )


def read_attempt(row: Sequence[Any]) -> Attempt:
    """An attempt from all columns of `attempt`."""
    _, handler, number, owner, started, ended, outcome, error = row
    return Attempt(handler, number, owner, started, ended, outcome, error)


def settlement(outcome: Outcome, now: float) -> dict[str, Any]:
    """The parameters of the statements `settle` and `end_attempt` for an outcome."""
    state, due, spared, error, word = DispatchState.PENDING, None, 0, None, "released"
    result: JSON = None
    match outcome:
        case Done():
            state, word, result = DispatchState.DONE, "done", outcome.result
        case RetryAt():
            due, word, error = outcome.at, "retry", outcome.error
        case Dead():
            state, word, error = DispatchState.DEAD, "dead", outcome.error
        case Released():
            due, spared = now, 1
    return {
        "state": state.value,
        "due_at": due,
        "spared": spared,
        "error": error,
        "result": None if result is None else json.dumps(result),
        "settled_at": None if state.open else now,
        "outcome": word,
        "now": now,
    }
