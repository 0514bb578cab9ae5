"""Context in the webhook URL."""

from __future__ import annotations

import base64
import json
import re
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from submitter.errors import BadInput, BadSettings, ContextTooLarge
from submitter.prediction import JSON
from submitter.submit.context_token import (
    MAX_CONTEXT_BYTES,
    MAX_TOKEN_CHARS,
    Seal,
    Sealed,
    load_or_create_key,
)

NOW = 1_772_356_368.5
DAY = 86400.0
OLD, NEW, FOREIGN = (Fernet.generate_key().decode() for _ in range(3))
SEAL = Seal([NEW, OLD])

contexts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(contexts)
def test_what_was_sealed_is_opened(context: JSON) -> None:
    """Any small JSON comes back as it was, through a text that fits into a URL's path."""
    token = SEAL.seal(context, model="a/b", now=NOW)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert SEAL.open(token, NOW) == Sealed(context, "a/b")


def test_a_token_opens_to_what_was_sealed() -> None:
    """The receiver finds context and model again."""
    sealed = SEAL.open(SEAL.seal([1], model=None, now=NOW), NOW)
    assert sealed is not None
    assert (sealed.context, sealed.model) == ([1], None)


@given(st.text() | st.text("-_AZaz09gAAAA", max_size=200) | st.binary().map(str))
def test_no_text_is_taken_for_a_token(token: str) -> None:
    """F33: a malformed or made-up token, in whatever characters, opens to nothing."""
    assert SEAL.open(token, NOW) is None


TOKEN = SEAL.seal({"user": 7}, model="a/b", now=NOW)


@given(st.integers(0, len(TOKEN) - 2), st.sampled_from("AZaz09-_"))
def test_an_altered_token_is_refused(place: int, letter: str) -> None:
    """F33: a token with another character anywhere is not ours."""
    altered = TOKEN[:place] + letter + TOKEN[place + 1 :]
    assert (SEAL.open(altered, NOW) is None) == (altered != TOKEN)


@pytest.mark.parametrize(
    "token",
    [
        "",
        TOKEN[:-4],
        TOKEN + "AAAA",
        TOKEN + "=",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN[:9] + "." + TOKEN[9:],
        TOKEN.replace("g", "\N{CYRILLIC SMALL LETTER A}", 1),
        "\ud800",
        "A" * (MAX_TOKEN_CHARS + 1),
        "A" * 10_000_000,
        Seal([FOREIGN]).seal({"user": 7}, model="a/b", now=NOW),
    ],
    ids=range(12),
)
def test_malformed_and_foreign_tokens(token: str) -> None:
    """F33: cut, lengthened, non-ASCII, oversized and foreign tokens open to nothing."""
    assert SEAL.open(token, NOW) is None


@pytest.mark.parametrize("model", [["a"], 5, None])
def test_what_another_program_sealed_with_our_key(model: JSON) -> None:
    """F33: a model that is no text is none, and content that is no context is refused."""

    def token(content: bytes) -> str:
        return Fernet(NEW).encrypt_at_time(content, int(NOW)).decode().rstrip("=")

    held = json.dumps({"context": 1, "model": model}).encode()
    assert SEAL.open(token(held), NOW) == Sealed(1, None)
    for content in (b"", b"\xff", b"[]", b'{"model":"a"}', b"[" * 2000):
        assert SEAL.open(token(content), NOW) is None


def test_expiry() -> None:
    """F33: a token lives for its lifetime and not a second longer."""
    token = SEAL.seal("x", model=None, now=NOW)
    assert SEAL.open(token, NOW + 8 * DAY - 1) is not None
    assert SEAL.open(token, NOW + 8 * DAY + 1) is None
    assert Seal([NEW], lifetime=60).open(token, NOW + 61) is None


def test_a_token_from_the_future_is_refused() -> None:
    """F6, F33: a date more than five minutes ahead of our clock is refused; a skew is not."""
    token = SEAL.seal("x", model=None, now=NOW)
    assert SEAL.open(token, NOW - 299) is not None
    assert SEAL.open(token, NOW - 301) is None


def test_a_retired_key_still_opens() -> None:
    """F39: tokens of both keys pass while both are on the ring; the newest one seals."""
    before = Seal([OLD]).seal("x", model=None, now=NOW)
    assert SEAL.open(before, NOW) == Sealed("x", None)
    after = SEAL.seal("x", model=None, now=NOW)
    assert Seal([OLD]).open(after, NOW) is None
    assert Seal([NEW]).open(after, NOW) is not None
    assert Seal([NEW]).open(before, NOW) is None


def test_the_largest_context_fits() -> None:
    """The limit itself passes, with the longest model, within the length that is opened."""
    context = "x" * (MAX_CONTEXT_BYTES - 2)
    token = SEAL.seal(context, model="m" * 256, now=NOW)
    assert len(token) < MAX_TOKEN_CHARS
    assert SEAL.open(token, NOW) == Sealed(context, "m" * 256)


def test_a_context_too_large() -> None:
    """A context over the limit says its size and the limit, in bytes, and what to do."""
    with pytest.raises(ContextTooLarge, match="pass its id") as caught:
        SEAL.seal("é" * MAX_CONTEXT_BYTES, model=None, now=NOW)
    assert (caught.value.size, caught.value.limit) == (2 * MAX_CONTEXT_BYTES + 2, MAX_CONTEXT_BYTES)


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"a": float("nan")}, "context.a"),
        ({"a": ["\ud800"]}, "context.a[0]"),
        ({"a": b""}, "context.a"),
    ],
)
def test_a_context_that_is_no_json(context: JSON, path: str) -> None:
    """F11: what cannot be JSON is refused before it is sealed, with its path."""
    with pytest.raises(BadInput) as caught:
        SEAL.seal(context, model=None, now=NOW)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_a_model_too_long() -> None:
    """F17: a model's id of any length does not make a token of any length."""
    with pytest.raises(BadInput, match="model"):
        SEAL.seal(None, model="m" * 257, now=NOW)


@pytest.mark.parametrize("key", ["", "short", "é" * 32, base64.b64encode(b"x" * 31).decode()])
def test_a_bad_key_is_named_by_its_place(key: str) -> None:
    """F16: the error says which key is wrong and how to make one, not the key."""
    with pytest.raises(BadSettings, match="key 2 is not a Fernet key") as caught:
        Seal([NEW, key])
    assert caught.value.setting == "WAVEHOOK_SEAL_KEYS"
    assert caught.value.__context__ is None


def test_no_key_at_all() -> None:
    """Sealing without a key is refused at once."""
    with pytest.raises(BadSettings, match="at least one key"):
        Seal([])


def test_nothing_shows_keys_or_contexts() -> None:
    """F16: neither keys nor contexts are in a repr."""
    shown = repr(SEAL) + repr(SEAL.open(SEAL.seal("SECRET", model=None, now=NOW), NOW))
    assert not any(secret in shown for secret in ("SECRET", NEW, OLD))


def test_the_key_file_is_made_once(tmp_path: Path) -> None:
    """The file is made for its owner only, and read again afterwards."""
    path = tmp_path / "seal.key"
    key = load_or_create_key(path)
    assert Seal([key]).open("x", NOW) is None
    assert load_or_create_key(str(path)) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["seal.key"]


def test_a_key_made_in_between_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: a key that another process makes after the look for one is used, not replaced."""
    path = tmp_path / "seal.key"
    path.write_text(NEW)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert load_or_create_key(path) == NEW
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\xfe"])
def test_a_file_with_something_else(tmp_path: Path, content: bytes) -> None:
    """A file that holds no key is not overwritten, and the error says what to do."""
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    with pytest.raises(BadSettings, match="restore or remove it"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Where no file can be made, the error names the file and the other way."""
    with pytest.raises(BadSettings, match="into this setting instead"):
        load_or_create_key(tmp_path / "missing" / "seal.key")
