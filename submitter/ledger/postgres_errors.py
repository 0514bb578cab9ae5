"""What errors of PostgreSQL and of its driver come to; no text of them holds a password or a value.

Those of the server are told in its own words, without the details, which may repeat a row.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from submitter.errors import BadSettings, LedgerUnavailable
from submitter.postgres import EXPECTED, advice, place

_LOST = ("08", "57P", "25P03", "25006")
"""SQLSTATEs of a server that goes away, or may no longer be written to."""

_REFUSED = ("22", "23", "54")
"""SQLSTATEs of one value that cannot be stored."""


class Lost(LedgerUnavailable):
    """The connection is lost, and nothing was done: worth trying on another."""


class Refused(LedgerUnavailable):
    """One of the values cannot be stored, while others can."""


def driver() -> Any:
    """The module asyncpg, which few need.

    Raises:
        BadSettings: it is not installed.
    """
    try:
        return import_module("asyncpg")
    except ImportError:
        raise BadSettings(
            "WAVEHOOK_DATABASE", "postgresql:// needs asyncpg; install wavehook[postgres]"
        ) from None


def failures(asyncpg: Any) -> tuple[type[Exception], ...]:
    """All that the driver raises; the operating system's own among it, and of the time limit."""
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def unavailable(error: Exception, *, lost: bool, committing: bool) -> LedgerUnavailable:
    """What a failure comes to.

    Args:
        error: one of `failures`.
        lost: the connection has ended.
        committing: it may have been done all the same.
    """
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, ValueError) or state.startswith(_REFUSED):
        return Refused(f"the ledger cannot store this: {_text(error)}")
    text = f"the ledger cannot be used now: {_text(error)}"
    gone = lost or isinstance(error, OSError) or state.startswith(_LOST)
    if gone and not committing and not isinstance(error, TimeoutError):
        return Lost(text)
    return LedgerUnavailable(text)


def unreachable(url: str, error: Exception) -> LedgerUnavailable:
    """What a failure to connect comes to."""
    if isinstance(error, ValueError):
        return LedgerUnavailable(
            f"the ledger's address cannot be right; write it as {EXPECTED}, with %-codes for "
            "special characters"
        )
    return LedgerUnavailable(f"cannot connect to {place(url)}: {_text(error)}")


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # The driver's own words about a value repeat it.
    if error.args and not isinstance(error, ValueError | OSError):
        todo = advice(getattr(error, "sqlstate", None) or "")
        return f"{error.args[0]}; {todo}" if todo else str(error.args[0])
    return str(error) if isinstance(error, OSError) else "a value that the database has not"
