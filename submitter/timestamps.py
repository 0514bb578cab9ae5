"""Points in time as text: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as UTC in RFC 3339."""
    if seconds is None:
        return None
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a sender's time beyond all calendars
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
