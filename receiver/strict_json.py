"""Strict JSON: what two readers could understand differently is not read at all.

JSON on one line of ASCII: control characters, line ends, lone surrogates are escaped (F17).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, cast

from submitter.prediction import JSON


class Unreadable(ValueError):
    """The bytes are not JSON that every reader understands alike."""


def parse(body: bytes) -> JSON:
    """Read UTF-8 JSON as RFC 8259 means it, and no more.

    Python's reader also takes NaN, numbers beyond a float, repeated keys and lone surrogates;
    each of them breaks something later: a database, another parser, a handler's encoder.

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
    """The encoder of orjson where the extra `speed` is there, else the standard library's.

    The standard library's writes ASCII only; what orjson writes is taken where it is ASCII too.

    Args:
        default: stands in for what is no JSON; without it that is a TypeError.
    """
    # What is encoded was parsed, or made here: there is no circle in it.
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
