"""The JSON shape in which an event leaves for another program."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.event import PARKED, Origin
from receiver.handlers.envelope import MAX_KEY_CHARS, ascii_key, encode_envelope, envelope
from submitter.timestamps import rfc3339_clamped
from tests.support.events import event

BODY = b'{"id": "abc", "status": "completed", "outputs": ["https://cdn.example/1.mp4"], "x": 1}'


EVENT = event(
    "abc",
    model="kwaivgi/kling",
    context={"job": 7},
    body=BODY,
    origin=Origin.RECONCILE,
    occurred_at=1_800_000_000.0,
    received_at=1_800_000_001.25,
)


def test_the_shape_is_the_documented_one() -> None:
    """A prediction goes out whole, with what we know beside it."""
    assert envelope(EVENT) == {
        "type": "prediction.completed",
        "timestamp": "2027-01-15T08:00:00Z",
        "data": {
            "id": "wavespeed:abc:completed",
            "source": "wavespeed",
            "origin": "reconcile",
            "received_at": "2027-01-15T08:00:01.250Z",
            "subject": "abc",
            "model": "kwaivgi/kling",
            "context": {"job": 7},
            "prediction": json.loads(BODY),
        },
    }


def test_json_that_is_no_prediction_goes_out_as_payload() -> None:
    """Another source's event keeps its JSON."""
    data = envelope(replace(EVENT, body=b'{"zen": true}', type="ping"))["data"]
    assert isinstance(data, dict)
    assert (data["prediction"], data["payload"]) == (None, {"zen": True})


def test_bytes_that_are_no_json_go_out_as_they_came() -> None:
    """F11: a handler that asked for parked events loses nothing of them."""
    data = envelope(replace(EVENT, body=b"\xff{NaN", type=PARKED))["data"]
    assert isinstance(data, dict)
    assert base64.b64decode(str(data["body"])) == b"\xff{NaN"


def test_a_line_holds_no_line_end_and_no_raw_control_character() -> None:
    """F17: what a body says cannot end the line that it stands on."""
    data = encode_envelope(
        replace(EVENT, body=b'{"id": "a", "status": "x", "e": "\\r\\n\\u2028\\u0000\xc3\xa9"}')
    )
    assert data.isascii()
    assert all(0x20 <= byte < 0x7F for byte in data)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (-5.0, "1970-01-01T00:00:00Z"),
        (1e300, "9999-12-31T23:59:59Z"),
    ],
)
def test_any_time_can_be_written(seconds: float, text: str) -> None:
    """F6: a sender's impossible clock does not stop an event."""
    assert rfc3339_clamped(seconds) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("wavespeed:abc:completed/shop", "wavespeed:abc:completed/shop"),
        ("a b", "a%20b"),
        ("a%20b", "a%2520b"),
        ("a.b", "a%2Eb"),
        ("é", "%C3%A9"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
    ],
)
def test_a_key_becomes_visible_ascii(key: str, text: str) -> None:
    """F17: nothing in an id can end a header."""
    assert ascii_key(key) == text


@given(st.text(max_size=400), st.text(max_size=400))
def test_keys_stay_bounded_and_different(one: str, other: str) -> None:
    """F17: any two keys stay two, and none is longer than a header should be."""
    texts = ascii_key(one), ascii_key(other)
    assert (texts[0] == texts[1]) is (one == other)
    assert all(len(text) <= MAX_KEY_CHARS and text.isascii() for text in texts)
    assert all(" " not in text and text.isprintable() for text in texts)
