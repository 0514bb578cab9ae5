"""The command `wavehook models`. The API's texts are printed as plain text."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import typer

from submitter import catalogue
from submitter.api.models import Model
from submitter.cli.run import json_line, plain, print_retries
from submitter.errors import BadSettings, suggest
from submitter.prediction import JSON
from submitter.settings import SubmitSettings
from submitter.submit.files import takes_files

_HEADS = ("ID", "TYPE", "FROM", "DESCRIPTION")

_MAX_TEXT = 300

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "object",
    "null": "null",
}


def lines(models: Sequence[Model]) -> Iterator[str]:
    """One line a model, in columns."""
    rows = [_HEADS, *map(_row, models)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def table(models: Sequence[Model]) -> None:
    """Print the same columns as a table that fits the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for head in _HEADS:
        # The description gets the remaining width.
        shown.add_column(head, no_wrap=True, ratio=1 if head == "DESCRIPTION" else None)
    for model in models:
        shown.add_row(*map(Text, _row(model)))
    Console().print(shown)


def _row(model: Model) -> tuple[str, str, str, str]:
    first = model.description.strip().split("\n", 1)[0]
    return plain(model.id), plain(model.type) or "-", _price(model) or "-", _short(first)


def _price(model: Model) -> str:
    return "" if model.base_price is None else f"{model.base_price:g} USD"


def sheet(model: Model) -> Iterator[str]:
    """Lines about one model: description, price and input fields."""
    width = min(shutil.get_terminal_size().columns, 100)
    yield plain(model.id)
    price = _price(model)
    yield ", ".join(filter(None, [plain(model.type), price and f"from {price} a task"])) or "-"
    for paragraph in model.description.splitlines():
        yield from textwrap.wrap(plain(paragraph), width)
    yield ""
    schema = model.schema or {}
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    fields = _ordered(schema)
    if not fields:
        yield "Its fields are not known; the API checks them."
    for name, about in fields.items():
        yield from _field(name, about, width, required=name in names)


def _ordered(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    fields, order = schema.get("properties"), schema.get("x-order-properties")
    if not isinstance(fields, dict):
        return {}
    first = [str(name) for name in order] if isinstance(order, list) else []
    return {name: fields[name] for name in [*first, *fields] if name in fields}


def _field(name: str, schema: JSON, width: int, *, required: bool) -> Iterator[str]:
    known = schema if isinstance(schema, dict) else {}
    words = [
        _type(name, known),
        "required" if required else "",
        *_limits(known),
        f"default {_value(known['default'])}" if "default" in known else "",
    ]
    head, indent = f"  {_short(name):18} ", " " * 21
    yield from _wrapped(", ".join(filter(None, words)), width, head, indent)
    description = known.get("description")
    if isinstance(description, str):
        yield from _wrapped(_short(" ".join(description.split())), width, indent, indent)


def _wrapped(text: str, width: int, head: str, indent: str) -> list[str]:
    width = max(width, 40)
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=indent)


def _type(name: str, schema: Mapping[str, JSON]) -> str:
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    words = " or ".join(_TYPES[each] for each in listed if isinstance(each, str) and each in _TYPES)
    if not takes_files(name, dict(schema)):
        return words or "any"
    return "list of URLs or local files" if types == "array" else "URL or local file"


def _limits(schema: Mapping[str, JSON]) -> Iterator[str]:
    enum = schema.get("enum")
    if isinstance(enum, list):
        yield _short("one of " + ", ".join(map(_value, enum)))
    yield _range(schema.get("minimum"), schema.get("maximum"))
    yield _range(schema.get("minLength"), schema.get("maxLength"), " characters")
    yield _range(schema.get("minItems"), schema.get("maxItems"), " items")


def _range(least: JSON, most: JSON, unit: str = "") -> str:
    if least is not None and most is not None:
        return f"{_value(least)} to {_value(most)}{unit}"
    if least is not None:
        return f"at least {_value(least)}{unit}"
    return "" if most is None else f"at most {_value(most)}{unit}"


def _value(value: JSON) -> str:
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return plain(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")


_SHOWN_NAME = 100


def models_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: reads the settings when the command runs; BadSettings ends it with exit code 2.
    """

    def models(
        name: Annotated[
            str | None,
            typer.Argument(
                help="A model's id: show its input fields.", metavar="NAME", show_default=False
            ),
        ] = None,
        *,
        search: Annotated[
            str,
            typer.Option(
                metavar="TEXT",
                help="Only models with all of these words in id, type or description.",
            ),
        ] = "",
        as_json: Annotated[
            bool,
            typer.Option(
                "--json", help="Print one JSON object a line; with NAME, its JSON Schema too."
            ),
        ] = False,
    ) -> None:
        """List the models, or show the input fields of one.

        The list is fetched from the API at most once an hour. Without an API key, or if the API is
        not available, the built-in models are shown.

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
    from submitter.api.client import ApiClient
    from submitter.catalogue.live import Catalogue

    print_retries()
    async with ApiClient(given.api_key, given.base_url) as calls:
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
    elif _is_terminal():
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
        typer.echo("\n".join(sheet(model)))


def _fields(model: Model) -> dict[str, JSON]:
    return {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "base_price": model.base_price,
        "description": model.description,
    }
