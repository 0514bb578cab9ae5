"""Models as a person reads them; their texts are the API's, and are printed as plain text."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from submitter.api.models import Model
from submitter.media import takes_files
from submitter.prediction import JSON
from submitter.printing import plain

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
    """The same for a terminal: as wide as it is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for head in _HEADS:
        # The description has what the others leave.
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
    """Everything about one model: what it does, what it costs, what it takes."""
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
        yield "Its fields are not known here; the API checks them."
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
