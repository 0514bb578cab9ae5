"""Reads the inputs of a batch: JSON Lines or CSV, a row at a time, and none of them stops another.

JSON Lines: an object a line, which is the input; or `{"input": {…}, "context": …}`, where handlers
are to be given something with this row's result. CSV: the header names the fields; a cell is read
as JSON where its field is no text, and an empty one leaves the field out.

One row of a batch, and the keys that make sure that it is paid for once.

Fields of an input that a person wrote as text.
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
from submitter.submit.json_check import unfit


class Standing(enum.StrEnum):
    """How far a row is."""

    #: It was not sent, as far as is known.
    WAITING = "waiting"
    #: It was sent, and has not ended.
    RUNNING = "running"
    #: Its task ended well.
    COMPLETED = "completed"
    #: Its task ended badly.
    FAILED = "failed"
    #: The API refused it, and created nothing.
    REJECTED = "rejected"
    #: It cannot be sent as it is.
    INVALID = "invalid"


@dataclass(slots=True)
class Row:
    """One row; of many there are many, so that it holds little.

    Attributes:
        number: from 1.
        line: where it begins in the file, from 1.
        text: its input as JSON; empty where it cannot be read.
        key: of its submission, which names what is paid for once.
        context: for the handlers.
        standing: how far it is.
        error: why it is INVALID or REJECTED.
        code: the API's code beside it.
        digest: of what was paid for under its key; None where nothing was.
        offer: which of the batch's prices is its own.
        cost: USD; None where nobody knows.
    """

    number: int
    line: int
    text: str = field(repr=False)
    key: str
    context: JSON = field(default=None, repr=False)
    standing: Standing = Standing.WAITING
    error: str | None = field(default=None, repr=False)
    code: int | str | None = None
    digest: str | None = None
    offer: int | None = None
    cost: float | None = None


class Keys:
    """Gives rows their keys.

    Args:
        name: of the batch.
        model: the model's id.
    """

    def __init__(self, name: str, model: str) -> None:
        whose = _digest(f"{name}\0{model}", 20)
        self.prefix = f"batch:{whose}:"
        self._given: dict[str, int] = {}

    def key(self, content: str) -> str:
        """The key of the next row with this content: equal rows are paid for one by one."""
        digest = _digest(content, 24)
        number = self._given[digest] = self._given.get(digest, 0) + 1
        return f"{self.prefix}{digest}:{number}"


def with_content(key: str, digest: str) -> str:
    """The key of a row that names the same files as before, with other content in them."""
    head, _, number = key.rpartition(":")
    occurrence = number.partition(".")[0]
    return f"{head}-{digest[:16]}:{occurrence}"


def following(key: str) -> str:
    """The key under which a row is paid for again, after its task of `key` ended badly."""
    head, _, number = key.rpartition(":")
    occurrence, _, generation = number.partition(".")
    return f"{head}:{occurrence}.{int(generation or 1) + 1}"


def _digest(text: str, length: int) -> str:
    # JSON may hold half a character, which no text file does.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def properties(model: Model | None) -> Mapping[str, JSON]:
    """The schemas of a model's fields, as far as they are known."""
    found = (model.schema or {}).get("properties") if model else None
    return found if isinstance(found, dict) else {}


def read_field(text: str, schema: JSON) -> JSON:
    """Read one field: JSON, unless it is text by its schema, or no JSON."""
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
class _Unreadable:
    """A row that cannot be read: what tells it from others, and why."""

    content: str
    reason: str


class _Refused(Exception):
    """Why a row cannot be read."""


_Given: TypeAlias = "dict[str, Any] | _Unreadable"


def read_rows(
    path: Path, keys: Keys, schemas: Mapping[str, JSON], context: JSON = None
) -> list[Row]:
    """Read every row.

    Args:
        path: ends in one of `FORMATS`.
        keys: of the batch.
        schemas: of the model's fields, which tell text from numbers in CSV.
        context: of the rows that bring none of their own.

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
        raise _bad(path, "holds no rows")
    return rows


def _row(number: int, line: int, given: _Given, keys: Keys, context: JSON) -> Row:
    if isinstance(given, dict):
        input = given
        if isinstance(given.get("input"), dict) and given.keys() <= {"input", "context"}:
            input, context = given["input"], given.get("context", context)
        faults, sound = unfit(input)
        if sound:
            text = json.dumps(input, ensure_ascii=False)
            ordered = json.dumps(input, ensure_ascii=False, sort_keys=True)
            return Row(number, line, text, keys.key(ordered), context)
        given = _Unreadable(str(number), "; ".join(map(str, faults)))
    key = keys.key(f"unreadable: {given.content}")
    return Row(number, line, "", key, standing=Standing.INVALID, error=given.reason)


def _read_lines(path: Path) -> Iterator[tuple[int, _Given]]:
    """Line numbers, and objects or what cannot be read, with the reason."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
            if content:
                try:
                    yield number, _object(content)
                except _Refused as error:
                    yield number, _Unreadable(content.decode("latin-1"), str(error))


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode())
    except UnicodeError:
        raise _Refused("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _Refused(f"is no JSON: {error.msg} in column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _Refused("is no JSON: its numbers or its depth are beyond reading") from None
    if not isinstance(found, dict):
        raise _Refused("must be a JSON object")
    return found


def _read_csv(path: Path, schemas: Mapping[str, JSON]) -> Iterator[tuple[int, _Given]]:
    """As `_read_lines`."""
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
                    raise _bad(path, f"its header is no CSV: {error}") from None
                yield line, _Unreadable(str(line), f"is no CSV: {error}")
                continue
            if header is None:
                header = [name.strip() for name in cells]
                named = [name for name in header if name]
                if not named or len(set(named)) < len(named):
                    raise _bad(path, "its header must name the fields, each once")
            elif any(cells):
                try:
                    yield line, _fields(header, cells, schemas)
                except _Refused as error:
                    yield line, _Unreadable(json.dumps(cells), str(error))


def _fields(header: list[str], cells: list[str], schemas: Mapping[str, JSON]) -> dict[str, Any]:
    names = header + [""] * (len(cells) - len(header))
    # Spreadsheets write cells without a name where nobody wrote anything.
    if any(cell and not name for name, cell in zip(names, cells, strict=False)):
        raise _Refused(f"has a cell beyond the fields of the header ({len(header)})")
    return {
        name: read_field(cell, schemas.get(name))
        for name, cell in zip(names, cells, strict=False)
        if cell
    }


def _bad(path: Path, reason: str) -> BadInput:
    return BadInput([Fault(path.name, reason)])
