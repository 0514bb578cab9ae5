"""How a written value is read: each function returns what the settings hold or raises ValueError.

A ValueError without a text means that the setting's `expected` says it all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from receiver.config.secret import Secret
from submitter import units
from submitter.postgres import is_postgres, name_fault, url_fault

Number = TypeVar("Number", int, float)


def text(value: object) -> str:
    """One line of printable text, without the spaces around it."""
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one error that is collected
    value = value.strip()
    if not value:
        raise ValueError("it is empty; give a value, or remove the setting")
    if not value.isprintable():
        raise ValueError("it holds line breaks or other unprintable characters")
    return value


def word(value: object) -> str:
    """One of a few words, in any case."""
    return text(value).lower()


def one_of(*words: str) -> Callable[[object], str]:
    """One of these words, in any case."""

    def read(value: object) -> str:
        found = word(value)
        if found not in words:
            raise ValueError
        return found

    return read


def within(
    read: Callable[[object], Number], least: float, most: float
) -> Callable[[object], Number]:
    """What `read` gives, from `least` to `most`."""

    def check(value: object) -> Number:
        number = read(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return check


def secret(value: object) -> Secret:
    """Text that is not shown."""
    return Secret(text(value))


def secrets(value: object) -> tuple[Secret, ...]:
    """Texts as `items` reads them, that are not shown."""
    return tuple(map(Secret, items(value)))


def items(value: object) -> tuple[str, ...]:
    """Texts: a list as it stands, or one text that is split at its commas."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(text(item) for item in value)


def whole(value: object) -> int:
    """A whole number, also written as text."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError  # noqa: TRY004 - as above
    return value


def seconds(value: object) -> float:
    """Seconds, from a number or from a text such as `30s`, `5m` or `1h`."""
    try:
        return units.seconds(value)
    except ValueError:
        raise ValueError from None


def size(value: object) -> int:
    """Bytes, from a number or from a text such as `512KiB` or `1 MiB`."""
    try:
        return units.size(value)
    except ValueError:
        raise ValueError from None


def http_url(value: object) -> str:
    """An absolute URL without a query, a fragment, a user or a slash at its end."""
    written = text(value)
    parts = urlsplit(written)
    port_is_a_number = parts.port != -1  # reading it raises ValueError for anything else
    if (
        not port_is_a_number
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or " " in written
    ):
        raise ValueError
    return written.rstrip("/")


def database_url(value: object) -> str:
    """A URL of a kind of store that there is."""
    written = text(value)
    if is_postgres(written):
        if fault := url_fault(written):
            raise ValueError(fault)
        return written
    scheme, _, path = written.partition("://")
    if scheme != "sqlite" or not path.startswith("/") or path.strip("/") == "":
        raise ValueError
    if "?" in path or "#" in path or path.endswith("/"):
        raise ValueError
    return written


def schema_name(value: object) -> str:
    """The name of a schema of PostgreSQL."""
    written = text(value)
    if fault := name_fault(written):
        raise ValueError(fault)
    return written


def modules(value: object) -> tuple[str, ...]:
    """Dotted names of Python modules."""
    names = items(value)
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError
    return names


def prefix(value: object) -> str:
    """Printable text that may be empty, and keeps its spaces."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError
    return value


def header_name(value: object) -> str:
    """The name of an HTTP header (https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2)."""
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}", written, re.ASCII):
        raise ValueError
    return written
