"""Times as RFC 3339 text in UTC, and back; written once for both packages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_LAST_SECOND = 253_402_300_799.0  # of the year 9999, Python's last
_BEYOND_MICROSECONDS = re.compile(r"(\.\d{6})\d+")


def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as text with milliseconds; None for None and for a time beyond the calendar."""
    if seconds is None:
        return None
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return _text(at, "milliseconds")


def rfc3339_clamped(seconds: float) -> str:
    """Unix seconds as text, with milliseconds unless they are zero; range as for `utc_datetime`."""
    at = utc_datetime(seconds)
    return _text(at, "milliseconds" if at.microsecond else "seconds")


def rfc3339_microseconds(seconds: float) -> str:
    """Unix seconds as text with microseconds.

    Raises:
        ValueError, OverflowError: the time is beyond the calendar.
    """
    return _text(datetime.fromtimestamp(seconds, UTC), "microseconds")


def utc_datetime(seconds: float) -> datetime:
    """Unix seconds as a datetime; for an impossible clock, the nearest time that can be written."""
    if not 0.0 <= seconds <= _LAST_SECOND:
        seconds = min(max(0.0, seconds), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC)


def parse_rfc3339(text: object) -> datetime | None:
    """Read a time with an offset; None for anything else. Nanoseconds are cut to microseconds."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        at = datetime.fromisoformat(_BEYOND_MICROSECONDS.sub(r"\1", text))
    except ValueError:
        return None
    return at if at.tzinfo else None


def _text(at: datetime, timespec: str) -> str:
    return at.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"
