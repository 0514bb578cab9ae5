"""Entries to rows of PostgreSQL, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from submitter.ledger import rows
from submitter.ledger.base import Entry

Row: TypeAlias = Sequence[Any]
"""The values of `COLUMNS`."""

COLUMNS = (
    "seq", "key", "model", "input", "digest", "until", "state", "tries", "sent_at", "context",
    "webhook", "cost", "task_id", "guessed", "accepted_at", "expected_at", "ask_at", "asks",
    "reason", "status", "ended_at", "place", "prediction", "delivered",
)  # fmt: skip

CHANGING = (
    "key", "state", "task_id", "guessed", "accepted_at", "expected_at", "ask_at", "asks",
    "reason", "status", "ended_at", "place", "prediction", "delivered",
)  # fmt: skip
"""The key, and what changes after the intent."""

KEY, TASK_ID = COLUMNS.index("key"), COLUMNS.index("task_id")


def text(value: str) -> str:
    """What the database can hold: half a character, and a zero, become `?`."""
    return rows.text(value).replace("\0", "?")


def row(entry: Entry, seq: int, ended_at: float | None) -> Row:
    """All columns."""
    values = rows.written(entry, ended_at) | {"seq": seq}
    found = [values[name] for name in COLUMNS]
    return [text(value) if isinstance(value, str) else value for value in found]


def columns(found: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    """One array for each of these columns."""
    places = [COLUMNS.index(name) for name in names]
    return [[each[place] for each in found] for place in places]
