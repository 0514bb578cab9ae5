"""The results file of a batch: whole or not at all, and never another's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from submitter.batch.results import PAGE_ROWS, read_earlier, write_results
from submitter.batch.rows import Row, RowState
from submitter.errors import BadInput, LedgerUnavailable
from submitter.ledger.base import Entry, State

PREFIX = "batch:x:"


async def nothing(keys: Sequence[str]) -> Mapping[str, Entry]:
    return {}


def row(number: int = 1, text: str = "{}") -> Row:
    return Row(number, number, text, f"{PREFIX}{number}")


async def test_rows_in_order(tmp_path: Path) -> None:
    """However many rows there are, they come in order, each once."""
    out = tmp_path / "out.jsonl"
    await write_results(out, [row(n) for n in range(1, 2 * PAGE_ROWS + 2)], "m", nothing)
    numbers = [json.loads(line)["row"] for line in out.read_text().splitlines()]
    assert numbers == list(range(1, 2 * PAGE_ROWS + 2))
    assert list(tmp_path.iterdir()) == [out]


async def test_what_is_open_has_its_state(tmp_path: Path) -> None:
    """A row that has not ended says how far the ledger knows it to be."""

    async def find(keys: Sequence[str]) -> Mapping[str, Entry]:
        one = Entry(keys[0], "m", {}, "", 0.0, State.UNKNOWN, 1, 0.0, reason="HTTP 500")
        two = replace(one, key=keys[1], state=State.REJECTED, reason="HTTP 429")
        return {one.key: one, two.key: two}

    out = tmp_path / "out.jsonl"
    await write_results(out, [row(1), row(2)], "m", find)
    one, two = (json.loads(line) for line in out.read_text().splitlines())
    assert (one["status"], one["error"]) == ("unknown", "HTTP 500")
    assert one["submitted_at"] == "1970-01-01T00:00:00.000Z"
    assert (two["status"], two["submitted_at"]) == ("waiting", None)
    assert read_earlier(out, PREFIX).submitted == {one["key"]}


async def test_every_line_is_json(tmp_path: Path) -> None:
    """Half a character and NaN, which no JSON reader need know, are written as what is."""
    out = tmp_path / "out.jsonl"
    await write_results(out, [row(1, '{"a": "\ud800", "b": NaN}')], "m", nothing)
    [line] = out.read_text("utf-8").splitlines()
    assert "NaN," not in line
    assert json.loads(line)["input"] == {"a": "\ud800", "b": "NaN"}


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Results that go through a link go to where it leads."""
    there = tmp_path / "there.jsonl"
    there.write_text("")
    out = tmp_path / "out.jsonl"
    out.symlink_to(there)
    await write_results(out, [row()], "m", nothing)
    assert out.is_symlink()
    assert json.loads(there.read_text())["row"] == 1


async def test_half_a_file_is_none(tmp_path: Path) -> None:
    """F20: where the ledger fails in the middle, the file stays as it was."""

    async def away(keys: Sequence[str]) -> Mapping[str, Entry]:
        raise LedgerUnavailable("disk full")

    out = tmp_path / "out.jsonl"
    out.write_text("before")
    with pytest.raises(LedgerUnavailable):
        await write_results(out, [row()], "m", away)
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"[1]",
        b"{}",
        b'{"key": 1, "task_id": 1, "status": 1, "finished_at": 1}',
        b'{"key": "batch:other:1"}',
        b'{"key": "batch:x:1"}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_another_file_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    """A file that this batch did not make is refused before anything is sent."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(content + b"\n")
    with pytest.raises(BadInput, match="not a results file of this batch"):
        read_earlier(out, PREFIX)


def test_no_place_for_results(tmp_path: Path) -> None:
    """F20: where nothing can be written, nothing is paid for."""
    with pytest.raises(BadInput, match="cannot be written: No such file"):
        read_earlier(tmp_path / "none" / "out.jsonl", PREFIX)
    with pytest.raises(BadInput, match="is not a file"):
        read_earlier(tmp_path, PREFIX)


def test_a_new_and_an_empty_file(tmp_path: Path) -> None:
    """Neither tells anything of an earlier run, and looking leaves nothing behind."""
    out = tmp_path / "out.jsonl"
    assert read_earlier(out, PREFIX).submitted == frozenset()
    assert list(tmp_path.iterdir()) == []
    out.touch()
    assert read_earlier(out, PREFIX).failed == frozenset()


async def test_what_an_earlier_run_tells(tmp_path: Path) -> None:
    """Refused rows are shown to have failed; rows without a task were not submitted."""
    out = tmp_path / "out.jsonl"
    refused = row(2)
    refused.state = RowState.REJECTED
    await write_results(out, [row(1), refused], "m", nothing)
    earlier = read_earlier(out, PREFIX)
    assert earlier.failed == {refused.key}
    assert earlier.submitted == frozenset()
