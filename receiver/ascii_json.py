"""JSON on one line of ASCII: control characters, line ends, lone surrogates are escaped (F17)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


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
