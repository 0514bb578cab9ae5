"""Rows of a batch: read from JSON Lines or CSV, each with a key that makes sure it is billed once.

JSON Lines: each line is an input, or `{"input": {…}, "context": …}` with a context of its own for
handlers. CSV: the header names the fields; a cell is parsed as JSON unless its field is a text, and
an empty cell leaves the field out. A faulty row does not stop the others.
"""

from __future__ import annotations

import csv
import enum
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from submitter.api.models import Model
from submitter.errors import BadInput, Fault
from submitter.prediction import JSON
from submitter.submit.json_check import json_faults


class RowState(enum.StrEnum):
    """State of a row."""

    #: Not submitted yet, as far as known.
    WAITING = "waiting"
    #: Submitted, and not ended.
    RUNNING = "running"
    #: Its task succeeded.
    COMPLETED = "completed"
    #: Its task failed.
    FAILED = "failed"
    #: The API refused it, and created no task.
    REJECTED = "rejected"
    #: Its input is not valid.
    INVALID = "invalid"


@dataclass(slots=True)
class Row:
    """One row of a batch.

    Attributes:
        number: number of the row, from 1.
        line: line in the file at which it begins, from 1.
        text: its input as JSON; empty if it cannot be read.
        key: idempotency key of its submission.
        context: context for the handlers.
        state: how far it has come.
        error: why it is INVALID or REJECTED.
        code: the API's error code.
        digest: digest of the content that was submitted under its key; None if nothing was.
        price_group: number of its price in the batch's prices.
        cost: USD; None if not known.
    """

    number: int
    line: int
    text: str = field(repr=False)
    key: str
    context: JSON = field(default=None, repr=False)
    state: RowState = RowState.WAITING
    error: str | None = field(default=None, repr=False)
    code: int | str | None = None
    digest: str | None = None
    price_group: int | None = None
    cost: float | None = None


class Keys:
    """Generator of the rows' idempotency keys.

    Args:
        name: name of the batch.
        model: the model's id.
    """

    def __init__(self, name: str, model: str) -> None:
        whose = _digest(f"{name}\0{model}", 20)
        self.prefix = f"batch:{whose}:"
        self._counts: dict[str, int] = {}

    def key(self, content: str) -> str:
        """The key of the next row with this content; equal rows are submitted separately."""
        digest = _digest(content, 24)
        number = self._counts[digest] = self._counts.get(digest, 0) + 1
        return f"{self.prefix}{digest}:{number}"


def content_key(key: str, digest: str) -> str:
    """The key of a row whose local files have the same names as before but other content."""
    head, _, number = key.rpartition(":")
    occurrence = number.partition(".")[0]
    return f"{head}-{digest[:16]}:{occurrence}"


def retry_key(key: str) -> str:
    """The key under which a row is submitted again, after its task of `key` failed."""
    head, _, number = key.rpartition(":")
    occurrence, _, generation = number.partition(".")
    return f"{head}:{occurrence}.{int(generation or 1) + 1}"


def _digest(text: str, length: int) -> str:
    # JSON may hold lone surrogates, which UTF-8 has not.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def properties(model: Model | None) -> Mapping[str, JSON]:
    """Schemas of a model's fields, as far as known."""
    found = (model.schema or {}).get("properties") if model else None
    return found if isinstance(found, dict) else {}


def read_field(text: str, schema: JSON) -> JSON:
    """Parse one field as JSON; a field of texts, or a value that is not JSON, stays a text."""
    types = schema.get("type") if isinstance(schema, dict) else None
    if types == "string" or (isinstance(types, list) and "string" in types):
        return text
    try:
        return cast("JSON", json.loads(text))
    except (ValueError, RecursionError):
        return text


FORMATS = (".jsonl", ".ndjson", ".csv")

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _UnreadableRow:
    """A row that cannot be read: its content, for its key, and the reason."""

    content: str
    reason: str


class _RowError(Exception):
    """A row cannot be read; the text says why."""


_ParsedRow: TypeAlias = "dict[str, Any] | _UnreadableRow"


def read_rows(
    path: Path, keys: Keys, schemas: Mapping[str, JSON], context: JSON = None
) -> list[Row]:
    """Read every row.

    Args:
        path: ends in one of `FORMATS`.
        keys: generator of the batch's keys.
        schemas: schemas of the model's fields, which tell texts from numbers in CSV.
        context: context of rows without one of their own.

    Raises:
        BadInput: the file cannot be read as a whole.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise _bad(path, f"must end in {', '.join(FORMATS)}")
    read = _read_csv(path, schemas) if suffix == ".csv" else _read_lines(path)
    rows: list[Row] = []
    try:
        for line, given in read:
            rows.append(_row(len(rows) + 1, line, given, keys, context))
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise _bad(path, "is not UTF-8") from None
    if not rows:
        raise _bad(path, "has no rows")
    return rows


def _row(number: int, line: int, given: _ParsedRow, keys: Keys, context: JSON) -> Row:
    if isinstance(given, dict):
        input = given
        if isinstance(given.get("input"), dict) and given.keys() <= {"input", "context"}:
            input, context = given["input"], given.get("context", context)
        faults, sound = json_faults(input)
        if sound:
            text = json.dumps(input, ensure_ascii=False)
            ordered = json.dumps(input, ensure_ascii=False, sort_keys=True)
            return Row(number, line, text, keys.key(ordered), context)
        given = _UnreadableRow(str(number), "; ".join(map(str, faults)))
    key = keys.key(f"unreadable: {given.content}")
    return Row(number, line, "", key, state=RowState.INVALID, error=given.reason)


def _read_lines(path: Path) -> Iterator[tuple[int, _ParsedRow]]:
    """Yield line numbers with objects, or with rows that cannot be read."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
            if content:
                try:
                    yield number, _object(content)
                except _RowError as error:
                    yield number, _UnreadableRow(content.decode("latin-1"), str(error))


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode())
    except UnicodeError:
        raise _RowError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _RowError(f"is not JSON: {error.msg} in column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _RowError(
            "is not readable JSON: a number is too large, or it is nested too deeply"
        ) from None
    if not isinstance(found, dict):
        raise _RowError("must be a JSON object")
    return found


def _read_csv(path: Path, schemas: Mapping[str, JSON]) -> Iterator[tuple[int, _ParsedRow]]:
    """Yield line numbers with objects, or with rows that cannot be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:
                    raise _bad(path, f"its header is not CSV: {error}") from None
                yield line, _UnreadableRow(str(line), f"is not CSV: {error}")
                continue
            if header is None:
                header = [name.strip() for name in cells]
                named = [name for name in header if name]
                if not named or len(set(named)) < len(named):
                    raise _bad(path, "its header must name the fields, each once")
            elif any(cells):
                try:
                    yield line, _fields(header, cells, schemas)
                except _RowError as error:
                    yield line, _UnreadableRow(json.dumps(cells), str(error))


def _fields(header: list[str], cells: list[str], schemas: Mapping[str, JSON]) -> dict[str, Any]:
    names = header + [""] * (len(cells) - len(header))
    # Spreadsheets add empty cells without a name.
    if any(cell and not name for name, cell in zip(names, cells, strict=False)):
        raise _RowError(f"has a cell beyond the fields of the header ({len(header)})")
    return {
        name: read_field(cell, schemas.get(name))
        for name, cell in zip(names, cells, strict=False)
        if cell
    }


def _bad(path: Path, reason: str) -> BadInput:
    return BadInput([Fault(path.name, reason)])
