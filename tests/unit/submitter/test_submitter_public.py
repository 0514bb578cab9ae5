"""What the package gives to its users."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import submitter
from receiver.strict_json import Unreadable, parse

HEAVY = ("httpx", "jsonschema", "typer", "stamina", "cryptography")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_does_no_work() -> None:
    """`import submitter` and what the receiver needs of it load nothing of weight."""
    assert not loaded_by("import submitter, submitter.prediction") & set(HEAVY)


def test_opening_tokens_needs_no_client() -> None:
    """The receiver opens tokens without an HTTP client or a validator; others it costs nothing."""
    key = "Seal(['k' * 43 + '='])"
    assert not loaded_by(f"from submitter import Seal; {key}") & set(HEAVY)
    loaded = loaded_by(f"from submitter import Seal; {key}.seal(1, model=None, now=0)")
    assert loaded & set(HEAVY) == {"cryptography"}


def test_the_client_needs_no_validator_until_it_checks() -> None:
    """The validator is loaded with the first input."""
    assert not loaded_by("from submitter import WaveSpeed") & {"jsonschema", "typer"}


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
