"""What the package gives to its users."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import submitter
from receiver.strict_json import Unreadable, parse


@pytest.mark.parametrize("name", submitter.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each name is found in its module, and once."""
    assert getattr(submitter, name) is getattr(submitter, name)


def test_public_names_are_sorted() -> None:
    """The list is in one order, constants first, and has no name twice."""
    names = submitter.__all__
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), name))


def test_other_names_are_not_there() -> None:
    """A name that is not public is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        submitter.Nothing  # type: ignore[attr-defined] # noqa: B018


@given(st.binary() | st.text().map(str.encode) | st.text('[]{}",:\\udNaI01.e- ').map(str.encode))
def test_any_bytes_are_json_or_unreadable(body: bytes) -> None:
    """F11, F12: no body makes the strict reader raise anything but Unreadable."""
    try:
        parse(body)
    except Unreadable as error:
        assert str(error).isidentifier()  # noqa: PT017
