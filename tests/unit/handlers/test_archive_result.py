"""What earlier handlers kept, as a later one reads it."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from receiver import Context, Dispatch, DispatchState
from receiver.handlers.archive.result import ArchivedFile, archived_files, result_of
from submitter.prediction import JSON

KEPT = ArchivedFile("https://cdn.example/a.mp4", "a/0.mp4", None, 3, "ab", "video/mp4")


def context(**results: JSON) -> Context:
    earlier = {
        name: Dispatch("wavespeed:a:completed", name, DispatchState.DONE, result=result)
        for name, result in results.items()
    }
    return Context("wavespeed:a:completed/team", "team", 1, 0.0, earlier)


def test_what_an_archive_returns_is_read_back() -> None:
    """By handler name, each one's files in order, beside results of another shape."""
    second = ArchivedFile(
        "https://cdn.example/b.png", "b/0.png", "https://k.example/b", 4, "cd", "x/y"
    )
    found = archived_files(
        context(z=result_of([second]), keep=result_of([KEPT, second]), shop={"n": 1})
    )
    assert found == [KEPT, second, second]


@pytest.mark.parametrize(
    "result",
    [None, [], {"files": 3}, {"files": [3]}, {"files": [{**asdict(KEPT), "size": "3"}]}],
    ids=str,
)
def test_a_result_of_another_shape_is_no_file(result: JSON) -> None:
    """Somebody's handler may mean another thing by `files`."""
    assert archived_files(context(own=result)) == []
