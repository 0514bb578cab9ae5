"""Durations and rates as a person writes them, in settings, flags and handlers' sections."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", re.ASCII)


def seconds(value: object) -> float:
    """Read a duration: `500ms`, `30s`, `2m`, `1h`, `7d`, or a number of seconds.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        number = float(found[1]) * _UNITS[found[2] or "s"]
    if number is None or not math.isfinite(number) or number < 0:
        raise ValueError("a duration such as 500ms, 30s, 2m or 1h, or a number of seconds")
    return number


def per_second(value: object) -> float:
    """Read a rate: `1/s`, `30/m`, `100/h`, or a number a second.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _RATE.fullmatch(value.strip())):
        number = float(found[1]) / _UNITS[found[2]]
    if number is None or not math.isfinite(number) or number <= 0:
        raise ValueError("a rate such as 1/s, 30/m or 100/h, or a number a second")
    return number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
