"""What commands print, alike for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from submitter.prediction import JSON

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails


def json_line(fields: Mapping[str, JSON]) -> None:
    """One object on one line of standard output."""
    typer.echo(json.dumps(fields))


def moment(seconds: float | None) -> str | None:
    """Unix seconds as UTC in RFC 3339."""
    if seconds is None:
        return None
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a sender's time beyond all calendars
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(text: str) -> str:
    """Text of others, without what would steer a terminal (F17)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def tell_retries() -> None:
    """Tell the person who waits that the API is asked again; stamina would log it."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([_tell_retry])


def hush_retries() -> None:
    """Tell nobody: where many questions are asked, some are always asked again."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([])


def _tell_retry(details: RetryDetails) -> None:
    typer.echo(f"{details.caused_by}; asking again in {details.wait_for:.1f} s", err=True)
