"""What can be sent as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.submit.json_check import MAX_DEPTH, MAX_VALUES, json_faults

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet=st.characters()) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_fit_can_be_encoded(value: object) -> None:
    """F11: whatever passes is encoded by a strict encoder, and comes back the same."""
    faults, _ = json_faults(value)
    if not faults:
        sent = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        assert json.loads(sent) == value
    assert all(fault.path and fault.message for fault in faults)


@pytest.mark.parametrize(
    ("value", "path", "word"),
    [
        (float("nan"), "input", "finite"),
        ({"a": float("inf")}, "a", "finite"),
        ({"a": [1, {"b": -float("inf")}]}, "a[1].b", "finite"),
        ({"a": 2**64}, "a", "64 bits"),
        ({"a": "\ud800"}, "a", "surrogate"),
        ({"a": b"x"}, "a", "bytes"),
        ({"a": (1, 2)}, "a", "tuple"),
        ([datetime(2026, 1, 1, tzinfo=UTC)], "[0]", "datetime"),
        ({"a": {1: 2}}, "a[1]", "name"),
        ({None: 2}, "NoneType", "name"),
        ({"\ud800": 2}, "'\\ud800'", "name"),
    ],
)
def test_each_fault_has_a_path(value: object, path: str, word: str) -> None:
    """F11: NaN, infinities, lone surrogates and other types are named where they stand."""
    faults, _ = json_faults(value)
    assert [fault.path for fault in faults] == [path]
    assert word in faults[0].message


def test_all_faults_in_order() -> None:
    """Every fault is found, in the order of the input."""
    faults, sound = json_faults({"a": float("nan"), "b": [b"", 1, b""], "c": {"d": b""}})
    assert [fault.path for fault in faults] == ["a", "b[0]", "b[2]", "c.d"]
    assert sound


def test_depth_is_bounded() -> None:
    """F11: nesting of any depth ends in one fault."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    faults, sound = json_faults(deep, "context")
    assert "deeper" in faults[0].message
    assert not sound
    while deep:
        deep = deep.pop()  # type: ignore[assignment]


def test_the_allowed_depth_passes() -> None:
    """The limit itself is allowed."""
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert json_faults(deep) == ([], True)


def test_what_holds_itself_ends() -> None:
    """A value that holds itself many times is refused without end of memory."""
    knot: list[object] = []
    knot.extend([knot, knot])
    faults, sound = json_faults(knot)
    assert len(faults) == 1
    assert not sound


def test_size_is_bounded() -> None:
    """A value with too many members is one fault."""
    faults, sound = json_faults([0] * (MAX_VALUES + 1))
    assert [fault.path for fault in faults] == ["input"]
    assert not sound


def test_names_in_paths_are_bounded_and_printable() -> None:
    """F17: a name is cut and escaped before it is shown."""
    faults, _ = json_faults({"x" * 10_000: b"", "a\nb\x1b": b""})
    assert len(faults[0].path) < 80
    assert faults[1].path == "'a\\nb\\x1b'"
