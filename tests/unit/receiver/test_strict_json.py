"""JSON on one line of ASCII, by whichever encoder is there."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.strict_json import encoder

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def slow() -> object:
    """The encoder of who has not installed the extra `speed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        return encoder()


@given(values)
def test_both_say_the_same(slow: object, value: object) -> None:
    """F17: visible ASCII, without a line's end, also of lone surrogates and huge integers."""
    assert callable(slow)
    for line in (encoder()(value), slow(value)):
        assert all(0x20 <= byte < 0x7F for byte in line)
        assert json.loads(line) == value


def test_what_is_no_json_has_a_stand_in_or_is_an_error() -> None:
    """As the log and the handlers want it."""
    assert encoder(lambda _: "it")({"a": object()}) == b'{"a":"it"}'
    with pytest.raises(TypeError):
        encoder()({"a": object()})
