"""Parsers of durations, rates and sizes in settings, flags and handlers' sections."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3} | {
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([A-Za-z]{0,3})", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", re.ASCII)


def seconds(value: object) -> float:
    """Parse a duration: `500ms`, `30s`, `2m`, `1h`, `7d`, or a number of seconds.

    Raises:
        ValueError: the text is what was expected, to follow "expected".
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        number = float(found[1]) * _UNITS[found[2] or "s"]
    if number is None or not math.isfinite(number) or number < 0:
        raise ValueError("a duration such as 500ms, 30s, 2m or 1h, or a number of seconds")
    return number


def per_second(value: object) -> float:
    """Parse a rate: `1/s`, `30/m`, `100/h`, or a number a second.

    Raises:
        ValueError: the text is what was expected, to follow "expected".
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _RATE.fullmatch(value.strip())):
        number = float(found[1]) / _UNITS[found[2]]
    if number is None or not math.isfinite(number) or number <= 0:
        raise ValueError("a rate such as 1/s, 30/m or 100/h, or a number a second")
    return number


def size(value: object) -> int:
    """Parse a number of bytes: `512KiB`, `1 MiB`, `500MB`, `2GB`, or a whole number.

    Raises:
        ValueError: the text is what was expected, to follow "expected".
    """
    if isinstance(value, str) and (found := _AMOUNT.fullmatch(value.strip())):
        unit = _BYTES.get(found[2].lower())
        if unit is not None:
            return int(float(found[1]) * unit)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a size such as 512KiB, 10 MiB or 2GB, or a whole number of bytes")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
