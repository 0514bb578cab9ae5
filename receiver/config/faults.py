"""Text of a settings fault: bounded, printable, and without secrets."""

from __future__ import annotations

import re

MASK = "***"
"""Stands for the value of a secret."""

_DATABASE = re.compile(r"(\bpostgres[\w+.-]*:/*).*", re.IGNORECASE)
"""Any part of a malformed PostgreSQL URL may be a part of its password."""

_MAX_CHARACTERS = 100


def shown(value: object) -> str:
    """A value as a fault shows it, without the password of a URL."""
    try:
        masked = re.sub(r"://.*@", f"://{MASK}@", repr(value))
        return _cut(_DATABASE.sub(rf"\1{MASK}'", masked))
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def safe(name: str) -> str:
    """A name from the file or the environment, with control characters escaped."""
    return _cut(name if name.isprintable() else repr(name))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."
