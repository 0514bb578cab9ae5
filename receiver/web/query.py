"""The values of a query, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

WHOLE = re.compile(r"[0-9]{1,18}")
"""A number that every database can hold."""


class Value(NamedTuple):
    """What one value of a query may be."""

    read: Callable[[str], float]
    pattern: re.Pattern[str]
    least: float
    most: float
    expected: str


def asked(request: Request, values: Mapping[str, Value]) -> Mapping[str, float]:
    """The values of a query, each of which may be left out.

    Args:
        request: with the query; what cannot be right is answered with 400.
        values: all that may be asked with.
    """
    found: dict[str, float] = {}
    for name, text in request.query_params.multi_items():
        # A misspelt `wait` that is passed over would turn a long poll into a busy one.
        if name not in values:
            raise HTTPException(400, f"Query: expected nothing but {', '.join(values)}")
        value = values[name]
        number = value.read(text) if value.pattern.fullmatch(text) else -1
        if name in found or not value.least <= number <= value.most:
            raise HTTPException(400, f"{name}: expected {value.expected}, once")
        found[name] = number
    return found
