"""Strict JSON: a parser that refuses ambiguous documents, and an encoder to one line of ASCII."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, cast

from submitter.prediction import JSON


class Unreadable(ValueError):
    """The bytes are not JSON that every parser reads alike."""


def parse(body: bytes) -> JSON:
    """Parse UTF-8 JSON strictly by RFC 8259.

    Python's parser also accepts NaN, numbers beyond a float, repeated keys and lone surrogates.
    Each of them breaks a later step: a database, another parser or a handler's encoder.

    Raises:
        Unreadable: not UTF-8, not JSON, nested too deeply, or one of the above.
    """
    try:
        text = body.decode().strip(_SPACE)
        value, end = _DECODER.raw_decode(text)
        if end != len(text):
            raise Unreadable("text after the value")
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    # RecursionError: depth; ValueError: the rest, also UnicodeError and too long integers.
    except (ValueError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from None
    return cast("JSON", value)


_SPACE = " \t\n\r"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError
    return number


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)


def encoder(default: Callable[[Any], Any] | None = None) -> Callable[[Any], bytes]:
    """Make an encoder to one line of ASCII: control characters and lone surrogates are escaped.

    It uses orjson if that is installed (extra `speed`) and its output is ASCII, and otherwise the
    standard library.

    Args:
        default: converts objects that are not JSON; without it they raise a TypeError.
    """
    # Encoded values were parsed or built here, so they have no cycles.
    plain = json.JSONEncoder(check_circular=False, separators=(",", ":"), default=default).encode

    def encode_any(value: Any) -> bytes:
        return plain(value).encode("ascii")

    try:
        import orjson
    except ImportError:
        return encode_any

    def encode(value: Any) -> bytes:
        try:
            line = orjson.dumps(value, default=default)
        except TypeError:
            return encode_any(value)
        return line if line.isascii() and b"\x7f" not in line else encode_any(value)

    return encode
