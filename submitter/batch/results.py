"""The results of a batch: a file of JSON Lines, one line a row, in the order of the inputs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from submitter.batch.rows import Row, RowState
from submitter.errors import BadInput, Fault
from submitter.ledger.base import OPEN, Entry, State
from submitter.prediction import JSON, Status
from submitter.timestamps import rfc3339

PAGE_ROWS = 500
"""Rows that are looked up and written together."""

Find = Callable[[Sequence[str]], Awaitable[Mapping[str, Entry]]]
"""Ledger entries by key."""


@dataclass(frozen=True, slots=True)
class EarlierResults:
    """Rows of an earlier run, read from its results file.

    Attributes:
        submitted: keys of rows that may have been billed.
        failed: keys of rows whose task failed, or that the API refused.
    """

    submitted: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


def read_earlier(out: Path, prefix: str) -> EarlierResults:
    """Read the results of an earlier run, and make sure that the file can be written.

    Args:
        out: the results file.
        prefix: prefix of this batch's keys.

    Raises:
        BadInput: no file can be written there, or it has other content.
    """
    try:
        draft = _draft(out)
        draft.touch(exist_ok=False)
        draft.unlink()
        if not out.exists():
            return EarlierResults()
        if not out.is_file():
            raise _bad(out, "is not a file")
        return _read(out, prefix)
    except OSError as error:
        raise _bad(out, f"cannot be written: {error.strerror}") from None


async def write_results(out: Path, rows: Sequence[Row], model: str, find: Find) -> None:
    """Write the results of all rows; the file is replaced completely, or not at all.

    Args:
        out: the results file.
        rows: the rows of the batch.
        model: the model's id.
        find: finds ledger entries.

    Raises:
        OSError: it cannot be written.
        LedgerUnavailable: the ledger cannot be read.
    """
    with _replacing(out) as file:
        for start in range(0, len(rows), PAGE_ROWS):
            page = rows[start : start + PAGE_ROWS]
            found = await find([row.key for row in page])
            for row in page:
                line = _result(row, model, found.get(row.key))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _result(row: Row, model: str, entry: Entry | None) -> dict[str, JSON]:
    # NaN is written as a text: JSON has no such number.
    input = json.loads(row.text, parse_constant=str) if row.text else None
    about: dict[str, JSON] = {"row": row.number, "key": row.key, "task_id": None}
    about |= {"model": model, "input": input}
    if entry is not None and (entry.state in OPEN or entry.state is State.FINISHED):
        done = entry.prediction
        ended = entry.finished_at
        return about | {
            "task_id": entry.task_id,
            "status": entry.status if done else entry.state.value,
            "outputs": list(done.outputs) if done else [],
            "error": done.error if done else entry.reason,
            "code": done.code if done else None,
            "cost": entry.cost,
            "submitted_at": rfc3339(entry.sent_at),
            "finished_at": rfc3339(ended),
            "seconds": None if ended is None else round(ended - entry.sent_at, 3),
        }
    unknown = ("cost", "submitted_at", "finished_at", "seconds")
    return about | {
        "status": row.state.value,
        "outputs": [],
        "error": row.error,
        "code": row.code,
        **dict.fromkeys(unknown),
    }


def _read(out: Path, prefix: str) -> EarlierResults:
    submitted, failed = set[str](), set[str]()
    other = (
        "exists, and is not a results file of this batch (its name and model): choose another "
        "--out, or move the file"
    )
    with out.open(encoding="utf-8") as file:
        try:
            for line in file:
                row: Any = json.loads(line)
                if not row["key"].startswith(prefix):
                    raise _bad(out, other)
                if row["submitted_at"] is not None:
                    submitted.add(row["key"])
                ended_badly = row["finished_at"] is not None and row["status"] != Status.COMPLETED
                if ended_badly or row["status"] == RowState.REJECTED:
                    failed.add(row["key"])
        # Not JSON, or not of this shape.
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise _bad(out, other) from None
    return EarlierResults(frozenset(submitted), frozenset(failed))


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[IO[str]]:
    """Write a draft that replaces the file once it is complete."""
    draft = _draft(out)
    try:
        # Lone surrogates have no UTF-8; they are escaped as in JSON.
        with draft.open("x", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(out.resolve())
    finally:
        draft.unlink(missing_ok=True)


def _draft(out: Path) -> Path:
    # A symbolic link is followed, not replaced.
    whole = out.resolve()
    return whole.with_name(f".{whole.name[:100]}.{secrets.token_hex(8)}")


def _bad(out: Path, reason: str) -> BadInput:
    return BadInput([Fault(str(out), reason)])
