"""What commands print, alike for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import typer

from submitter.prediction import JSON


def json_line(fields: Mapping[str, JSON]) -> None:
    """One object on one line of standard output."""
    typer.echo(json.dumps(fields))


def plain(text: str) -> str:
    """Text of others, without what would steer a terminal (F17)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
