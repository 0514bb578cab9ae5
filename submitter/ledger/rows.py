"""Entries to rows of the SQL ledgers, and back; the columns are in the order of the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from submitter.ledger.base import Entry, State
from submitter.prediction import Prediction


def text(value: str) -> str:
    """What a database can hold: half a character, which UTF-8 has not, becomes `?`."""
    return value.encode("utf-8", "replace").decode()


def texts(values: Sequence[str]) -> str:
    """A list of texts as one parameter."""
    return _json([text(value) for value in values])


def written(entry: Entry, ended_at: float | None) -> dict[str, Any]:
    """All columns after `seq`."""
    return changed(entry, ended_at) | {
        "model": text(entry.model),
        "input": _json(entry.input),
        "digest": text(entry.digest),
        "until": entry.until,
        "tries": entry.tries,
        "sent_at": entry.sent_at,
        "context": _json(entry.context),
        "webhook": entry.webhook,
        "cost": entry.cost,
    }


def changed(entry: Entry, ended_at: float | None) -> dict[str, Any]:
    """The key, and the columns that change after the intent."""
    return {
        "key": text(entry.key),
        "state": entry.state.value,
        "task_id": _optional(entry.task_id),
        "guessed": entry.guessed,
        "accepted_at": entry.accepted_at,
        "expected_at": entry.expected_at,
        "ask_at": entry.ask_at,
        "asks": entry.asks,
        "reason": _optional(entry.reason),
        "status": _optional(entry.status),
        "ended_at": ended_at,
        "place": entry.place,
        "prediction": _json(entry.prediction.raw) if entry.prediction else None,
        "delivered": entry.delivered,
    }


def read(row: Sequence[Any]) -> Entry:
    """An entry from all columns."""
    (
        _, key, model, input, digest, until, state, tries, sent_at, context, webhook, cost,
        task_id, guessed, accepted_at, expected_at, ask_at, asks, reason, status, ended_at,
        place, prediction, delivered,
    ) = row  # fmt: skip
    finished = state == State.FINISHED
    return Entry(
        key=key,
        model=model,
        input=json.loads(input),
        digest=digest,
        until=until,
        state=State(state),
        tries=tries,
        sent_at=sent_at,
        context=json.loads(context),
        webhook=bool(webhook),
        cost=cost,
        task_id=task_id,
        guessed=bool(guessed),
        accepted_at=accepted_at,
        expected_at=expected_at,
        ask_at=ask_at,
        asks=asks,
        reason=reason,
        status=status,
        finished_at=ended_at if finished else None,
        place=place,
        # One that was made by hand has no raw object.
        prediction=Prediction.parse(json.loads(prediction)) or Prediction(task_id, status)
        if finished
        else None,
        delivered=bool(delivered),
    )


def _optional(value: str | None) -> str | None:
    return None if value is None else text(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def results(found: Sequence[tuple[str | None, str, bool]]) -> str:
    """Results as (key, task id, delivered), as one parameter."""
    return _json([(_optional(key), text(task_id), delivered) for key, task_id, delivered in found])
