"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer

from submitter.prediction import JSON
from submitter.settings import MAX_DURATION_S
from submitter.units import seconds

JsonLines = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object a line on standard output, nothing else."),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="A small JSON value for your handlers; they get it with the result. It is encrypted "
        "into the webhook URL, which needs WAVEHOOK_PUBLIC_URL and the receiver's seal key.",
    ),
]
Webhook = Annotated[bool, typer.Option(help="Ask for a webhook, if WAVEHOOK_PUBLIC_URL is set.")]


def parse_time(text: str) -> float:
    """Parse a duration such as 90s.

    Raises:
        typer.BadParameter: it is not a duration, or longer than a setting may be.
    """
    try:
        found = seconds(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found <= MAX_DURATION_S:
        raise typer.BadParameter("expected a time of more than 0, in seconds or as 500ms, 30s, 5m")
    return found


def parse_dollars(text: str) -> float:
    """Parse an amount of USD.

    Raises:
        typer.BadParameter: it is not an amount.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    # NaN is in no range.
    if not 0.0 <= found < float("inf"):
        raise typer.BadParameter("expected an amount of USD, such as 2.50")
    return found


Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=parse_time,
        help="Stop waiting after this time, such as 90s or 10m. [default: wait without limit]",
    ),
]


def parse_json(text: str, option: str) -> JSON:
    """Parse the JSON of an option.

    Raises:
        typer.BadParameter: it is not JSON; says where.
    """
    try:
        return cast("JSON", json.loads(text))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        reason = "a number is too large, or it is nested too deeply"
    raise typer.BadParameter(f"expected JSON: {reason}", param_hint=option)
