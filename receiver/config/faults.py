"""How a fault is told: bounded, printable, and without a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
"""Stands for the value of a secret."""


def reason_of(fault: Mapping[str, Any]) -> str | None:
    """The text that a check of ours has raised, if it has said anything."""
    cause = fault.get("ctx", {}).get("error")
    return str(cause) or None if isinstance(cause, ValueError) else None


_DATABASE = re.compile(r"(\bpostgres[\w+.-]*:/*).*", re.IGNORECASE)
"""Where such a URL is malformed, any part of it may be a part of its password."""


def shown(value: object) -> str:
    """A value in a fault, without the password that a URL may hold."""
    try:
        masked = re.sub(r"://.*@", f"://{MASK}@", repr(value))
        return _cut(_DATABASE.sub(rf"\1{MASK}'", masked))
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def safe(name: str) -> str:
    """A name that somebody wrote, bounded and printable (F17)."""
    return _cut(name if name.isprintable() else repr(name))


def _cut(shown: str) -> str:
    return shown if len(shown) <= 100 else shown[:97] + "..."
