"""Common part of the SQL ledgers: rows to entries and back, and the reading methods."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from submitter.ledger.base import Entry, State
from submitter.ledger.transitions import TransactionalLedger
from submitter.prediction import Prediction

R = TypeVar("R")

COLUMNS = (
    "seq", "key", "model", "input", "digest", "until", "state", "tries", "sent_at", "context",
    "webhook", "cost", "task_id", "guessed", "accepted_at", "expected_at", "ask_at", "asks",
    "reason", "status", "ended_at", "place", "prediction", "delivered",
)  # fmt: skip
"""Of the table `ledger_entry`, in its order."""

MUTABLE_COLUMNS = (
    "key", "state", "task_id", "guessed", "accepted_at", "expected_at", "ask_at", "asks",
    "reason", "status", "ended_at", "place", "prediction", "delivered",
)  # fmt: skip
"""The key, and what changes after the intent."""


def text(value: str) -> str:
    """A text that a database can store: a lone surrogate becomes `?`."""
    return value.encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """A value as JSON, without spaces."""
    return json.dumps(value, separators=(",", ":"))


def inserted(entry: Entry) -> dict[str, Any]:
    """All columns after `seq`."""
    return updated(entry, None) | {
        "model": text(entry.model),
        "input": json_text(entry.input),
        "digest": text(entry.digest),
        "until": entry.until,
        "tries": entry.tries,
        "sent_at": entry.sent_at,
        "context": json_text(entry.context),
        "webhook": entry.webhook,
        "cost": entry.cost,
    }


def updated(entry: Entry, rejected_at: float | None) -> dict[str, Any]:
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
        "ended_at": rejected_at if entry.finished_at is None else entry.finished_at,
        "place": entry.place,
        "prediction": json_text(entry.prediction.raw) if entry.prediction else None,
        "delivered": entry.delivered,
    }


def read(row: Sequence[Any]) -> Entry:
    """An entry from the values of `COLUMNS`."""
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
        # A prediction that a test or a caller built itself has no raw object.
        prediction=Prediction.parse(json.loads(prediction)) or Prediction(task_id, status)
        if finished
        else None,
        delivered=bool(delivered),
    )


def _optional(value: str | None) -> str | None:
    return None if value is None else text(value)


class SQLLedger(TransactionalLedger):
    """The reading methods of the port, over the named statements of a database.

    Statements have the same names in both databases, and parameters in the same order.
    """

    @abstractmethod
    async def _select(self, convert: Callable[[Any], R], name: str, **values: Any) -> list[R]:
        """All rows of a named statement, converted; texts and lists of texts are encoded here."""

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        found = await self._select(read, "find", keys=keys)
        return {entry.key: entry for entry in found}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        found = await self._select(read, "find_tasks", task_ids=task_ids)
        return {str(entry.task_id): entry for entry in found}

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        return await self._select(read, "open_entries", limit=limit)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        return await self._select(read, "finished", after=after, limit=limit)

    async def last_place(self) -> int:
        (place,) = await self._select(lambda row: int(row[1]), "head")
        return place

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        return await self._select(read, "undelivered", before=before, limit=limit)

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        return await self._select(lambda row: float(row[0]), "durations", model=model, limit=limit)

    async def overdue(self, now: float) -> int:
        (count,) = await self._select(lambda row: int(row[0]), "overdue", now=now)
        return count

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        urls = await self._select(lambda row: str(row[0]), "uploaded", digest=digest, after=after)
        return urls[0] if urls else None

    async def _any_due(self, now: float, keys: Sequence[str] | None) -> bool:
        if keys is None:
            return bool(await self._select(bool, "due", now=now, limit=1))
        return bool(await self._select(bool, "due_of", now=now, limit=1, keys=keys))
