"""Options that several commands take, and how their values are read."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer

from submitter.prediction import JSON
from submitter.settings import MAX_DURATION_S
from submitter.units import seconds

Context = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="Any small JSON; every handler gets it with the result. Travels sealed in "
        "the webhook's URL, and needs WAVEHOOK_PUBLIC_URL and the receiver's seal key.",
    ),
]
Webhook = Annotated[
    bool, typer.Option(help="Ask for a webhook to WAVEHOOK_PUBLIC_URL, where that is set.")
]


def read_time(text: str) -> float:
    """Read a time, such as 90s.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        found = seconds(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found <= MAX_DURATION_S:
        raise typer.BadParameter("expected a time of more than 0, in seconds or as 500ms, 30s, 5m")
    return found


def read_dollars(text: str) -> float:
    """Read an amount of USD.

    Raises:
        typer.BadParameter: it is none.
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
        parser=read_time,
        help="How long to wait, such as 90s or 10m; without it, as long as it takes.",
    ),
]


def read_json(text: str, option: str) -> JSON:
    """Read the JSON of an option.

    Raises:
        typer.BadParameter: it is none; says where.
    """
    try:
        return cast("JSON", json.loads(text))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        reason = "its numbers or its depth are beyond reading"
    raise typer.BadParameter(f"is no JSON: {reason}", param_hint=option)
