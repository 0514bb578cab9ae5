"""The command `wavehook models`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from submitter import catalogue
from submitter.api.models import Model
from submitter.errors import BadSettings
from submitter.prediction import JSON
from submitter.printing import json_line, plain, tell_retries
from submitter.settings import SubmitSettings
from submitter.suggest import suggest

_SHOWN_NAME = 100


def models_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: gives the settings when the command runs; raises BadSettings for exit code 2.
    """

    def models(
        name: Annotated[
            str | None,
            typer.Argument(
                help="A model's id: show its fields.", metavar="NAME", show_default=False
            ),
        ] = None,
        *,
        search: Annotated[
            str,
            typer.Option(
                metavar="TEXT", help="Only models with all of these words in id, type or text."
            ),
        ] = "",
        as_json: Annotated[
            bool,
            typer.Option("--json", help="One JSON object a line; with NAME also its JSON Schema."),
        ] = False,
    ) -> None:
        """Show which models there are, or what one of them takes.

        The API is asked once an hour at most. Without it, or without a key, the built-in models
        are shown.

        Example: wavehook models --search "kling image-to-video"

        Exit codes: 0 done, 1 there is no such model, 2 usage or settings.
        """
        if name is not None and search:
            raise typer.BadParameter("give either NAME or --search", param_hint="--search")
        try:
            known, note = asyncio.run(_known(settings()))
        except BadSettings as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from None
        if name is None:
            _tell(note)
            _list(_found(known, search), as_json=as_json)
        else:
            _show(name, known, note, as_json=as_json)

    return models


async def _known(given: SubmitSettings) -> tuple[list[Model], str]:
    """The models, and what is to be said of their list."""
    if not (given.api_key or "").strip():
        own = filter(None, map(catalogue.builtin_model, catalogue.builtin_models()))
        return list(own), "Only the built-in models are known: WAVESPEED_API_KEY is not set"
    from submitter.api.client import Calls
    from submitter.catalogue.live import Catalogue

    tell_retries()
    async with Calls(given.api_key, given.base_url) as calls:
        live = Catalogue(calls.models, name=calls.base_url)
        known = await live.models()
    if live.failure is None:
        return known, ""
    if live.as_of is None:
        return known, f"Only the built-in models are known: {live.failure}"
    return known, f"The list of models is {_age(time.time() - live.as_of)} old: {live.failure}"


def _age(seconds: float) -> str:
    hours = max(round(seconds / 3600), 1)
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"


def _tell(note: str) -> None:
    if note:
        typer.echo(plain(note), err=True)


def _found(known: Sequence[Model], search: str) -> list[Model]:
    words = search.casefold().split()

    def fits(model: Model) -> bool:
        text = f"{model.id} {model.name} {model.type} {model.description}".casefold()
        return all(word in text for word in words)

    return list(filter(fits, known))


def _list(found: Sequence[Model], *, as_json: bool) -> None:
    if as_json:
        for model in found:
            json_line(_fields(model))
    elif not found:
        typer.echo("No such models.", err=True)
    else:
        from submitter.cli.models_view import lines, table

        if _is_terminal():
            table(found)
        else:
            typer.echo("\n".join(lines(found)))


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _show(name: str, known: Sequence[Model], note: str, *, as_json: bool) -> None:
    model = next((model for model in known if model.id == name), None)
    if model is None:
        _tell(note)
        hint = suggest(name, [model.id for model in known])
        shown = plain(name[:_SHOWN_NAME])
        typer.echo(f"Error: no model {shown} is known{plain(hint)}", err=True)
        raise typer.Exit(1)
    if as_json:
        schema = dict(model.schema) if model.schema is not None else None
        json_line({**_fields(model), "schema": schema})
    else:
        from submitter.cli.models_view import sheet

        typer.echo("\n".join(sheet(model)))


def _fields(model: Model) -> dict[str, JSON]:
    return {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "base_price": model.base_price,
        "description": model.description,
    }
