"""Reading the inputs of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from submitter.batch.rows import Keys, Row, RowState, content_key, read_rows, retry_key
from submitter.catalogue import builtin
from submitter.errors import BadInput

SCHEMAS = (builtin("kwaivgi/kling-v2.1-i2v-standard") or {})["properties"]


def rows(tmp_path: Path, content: str | bytes, name: str = "in.jsonl", **more: Any) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(path, Keys("name", "model"), SCHEMAS, **more)


def inputs(found: list[Row]) -> list[Any]:
    return [json.loads(row.text) if row.text else None for row in found]


def test_json_lines(tmp_path: Path) -> None:
    """Blank lines are passed over, a byte order mark is none of the input, and order stays."""
    found = rows(tmp_path, '\ufeff{"prompt": "ü"}\r\n\n  \n{"b": 1, "a": 2}')
    assert inputs(found) == [{"prompt": "ü"}, {"b": 1, "a": 2}]
    assert [(row.number, row.line) for row in found] == [(1, 1), (2, 4)]
    assert list(json.loads(found[1].text)) == ["b", "a"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON: Expecting property name"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number is too large"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nests deeper"),
    ],
    ids=["cut", "no object", "not UTF-8", "a huge number", "endless", "deep"],
)
def test_a_bad_line_stops_no_other(tmp_path: Path, line: bytes, reason: str) -> None:
    """F12: a line that cannot be read is a bad row, with the reason; it has a key all the same."""
    found = rows(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}')
    assert [row.state for row in found] == [
        RowState.WAITING,
        RowState.INVALID,
        RowState.WAITING,
    ]
    assert reason in str(found[1].error)
    assert len({row.key for row in found}) == 3


def test_contexts(tmp_path: Path) -> None:
    """A row may hold its input and a context; anything else is an input as it stands."""
    lines = ['{"input": {"a": 1}, "context": 5}', '{"input": {"a": 1}}', '{"input": "a", "b": 1}']
    found = rows(tmp_path, "\n".join(lines), context="all")
    assert [row.context for row in found] == [5, "all", "all"]
    assert inputs(found) == [{"a": 1}, {"a": 1}, {"input": "a", "b": 1}]


def test_csv(tmp_path: Path) -> None:
    """Text stays text, other fields are JSON, and an empty cell leaves its field out."""
    head = "\ufeffprompt,duration,image,extra,"
    lines = (head, '5,10,a.png,"[1, 2]",', "", '"two\nlines",,b.png,x', "")
    found = rows(tmp_path, "\r\n".join(lines), "in.CSV")
    assert inputs(found) == [
        {"prompt": "5", "duration": 10, "image": "a.png", "extra": [1, 2]},
        {"prompt": "two\nlines", "image": "b.png", "extra": "x"},
    ]
    assert [row.line for row in found] == [2, 4]


def test_a_bad_line_of_csv_stops_no_other(tmp_path: Path) -> None:
    """F12: cells without a field and broken quotes are bad rows."""
    found = rows(tmp_path, 'a,b\n1,2,3\n"x"y,1\n4,5\n', "in.csv")
    assert [row.error for row in found] == [
        "has a cell beyond the fields of the header (2)",
        "is not CSV: ',' expected after '\"'",
        None,
    ]


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        ("{}", "in.txt", "must end in .jsonl, .ndjson, .csv"),
        ("\n\n", "in.jsonl", "has no rows"),
        ("a,b\n", "in.csv", "has no rows"),
        ("a,a\n1,2", "in.csv", "each once"),
        (",\n1,2", "in.csv", "each once"),
        ('"a"b\n1', "in.csv", "its header is not CSV"),
        (b"a\n\xff\n", "in.csv", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, content: str | bytes, name: str, reason: str
) -> None:
    """What is wrong with the file as a whole is told with its name."""
    with pytest.raises(BadInput, match=reason) as caught:
        rows(tmp_path, content, name)
    assert caught.value.faults[0].path == name


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is told so."""
    with pytest.raises(BadInput, match="No such file"):
        read_rows(tmp_path / "none.jsonl", Keys("n", "m"), {})


def test_keys(tmp_path: Path) -> None:
    """A key depends on name, model and content, not on the order of fields or rows."""
    one = rows(tmp_path, '{"a": 1, "b": 2}\n{"b": 2, "a": 1}\n{"a": "\\ud800"}')
    two = rows(tmp_path, "a,b\n1,2\n1,2\n", "in.csv")
    assert [row.key for row in one][:2] == [row.key for row in two]
    assert len({row.key for row in one}) == 3
    assert Keys("name", "other").key("x") != Keys("name", "model").key("x")
    key = Keys("name", "model").key("x")
    assert retry_key(key) == f"{key}.2"
    assert retry_key(retry_key(key)) == f"{key}.3"
    assert content_key(f"{key}.2", "d" * 64) == key.replace(":1", f"-{'d' * 16}:1")
