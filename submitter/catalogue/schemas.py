"""Holds a value against a JSON Schema that a stranger may have written: offline, and with an end.

The live catalogue's schemas come over the network. Such a schema may refer to other addresses,
repeat itself without end, or hold an expression that takes for ever; none of it may stop a submit,
because the API checks each input anyway.
"""

from __future__ import annotations

import contextvars
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from submitter.strict import unfit

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator

    Rule: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]

MAX_SCHEMA = 65_536
"""Characters of one schema as JSON; a larger one is not looked into."""

MAX_STEPS = 30_000
"""How many rules one check may come to; a schema can multiply them with a few references."""

MAX_INSIDE = 64
"""How many rules may apply within each other. A definition that refers to itself goes on beyond any
number, and must not meet Python's own limit: that one makes the library for references panic."""

LINKS = ("uri", "url")
"""The formats that are looked at; others are remarks."""

# These run regular expressions, which can take for ever, or compare each item with each.
_LEFT_OUT = (
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
)

# Where these stand, leaving a rule out could make a fault of what is none.
_TURNED = ("contains", "if", "not", "oneOf")


@dataclass(slots=True)
class _Spent:
    steps: int = 0
    inside: int = 0


_spent: contextvars.ContextVar[_Spent] = contextvars.ContextVar("spent")


class _TooMuch(Exception):
    pass


def errors(schema: Mapping[str, Any], value: object) -> list[ValidationError]:
    """Find where a value breaks its schema.

    Args:
        schema: JSON Schema, 2020-12; an unusable one finds nothing.
        value: what is to be sent; sound JSON, as `submitter.strict` understands it.

    Returns:
        The validator's errors without their texts, which would repeat the value.
    """
    try:
        text = json.dumps(dict(schema))
    except (TypeError, ValueError, RecursionError):
        return []
    if len(text) > MAX_SCHEMA:
        return []
    token = _spent.set(_Spent())
    try:
        validator = _validator(text)
        return list(validator.iter_errors(cast("Any", value))) if validator else []
    # References that lead nowhere or in circles, and whatever else a schema can set off in there.
    except Exception:  # noqa: BLE001
        return []
    finally:
        _spent.reset(token)


@functools.lru_cache(maxsize=64)
def _validator(text: str) -> Validator | None:
    """The validator of a schema, or None where it is none that can be used."""
    from jsonschema import SchemaError
    from referencing import Registry

    schema = json.loads(text)
    schema.pop("$schema", None)
    faults, _ = unfit(schema)
    if faults or not _manageable(json.dumps(schema)):
        return None
    dialect = _dialect()
    try:
        dialect.check_schema(schema)
    except SchemaError:
        return None
    # An empty registry: nothing is ever fetched.
    registry: Registry[Any] = Registry()
    return dialect(schema, format_checker=_formats(), registry=registry)


def _manageable(text: str) -> bool:
    # A dialect named further inside would bring its own rules, those that are left out among them.
    if _has(text, "$schema"):
        return False
    return not (_has(text, *_LEFT_OUT) and _has(text, *_TURNED))


def _has(text: str, *names: str) -> bool:
    """Whether one of these is a name in this JSON; inside a text its quotes would be escaped."""
    return any(f'"{name}": ' in text for name in names)


@functools.cache
def _dialect() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    known: Mapping[str, Rule] = Draft202012Validator.VALIDATORS
    rules = {name: _counted(rule) for name, rule in known.items() if name not in _LEFT_OUT}
    rules |= dict.fromkeys(_LEFT_OUT, _nothing)
    rules["additionalProperties"] = _additional(rules["additionalProperties"])
    made = extend(Draft202012Validator, rules)  # type: ignore[no-untyped-call]
    return cast("type[Validator]", made)


def _counted(rule: Rule) -> Rule:
    """Have each use of a rule counted, and its errors silent."""

    def count(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        if value is None and schema.get("nullable") is True:
            return  # OpenAPI's word, which JSON Schema does not have
        spent = _spent.get()
        spent.steps += len(wanted) if isinstance(wanted, list | dict) else 1
        if spent.steps > MAX_STEPS or spent.inside == MAX_INSIDE:
            raise _TooMuch
        spent.inside += 1
        try:
            for error in rule(validator, wanted, value, schema) or ():
                error.message = ""
                yield error
        finally:
            spent.inside -= 1

    return count


def _nothing(*_: object) -> None:
    return None


def _additional(rule: Rule) -> Rule:
    def unless_patterns(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
        # What is additional would be told by regular expressions.
        return None if "patternProperties" in schema else rule(validator, wanted, value, schema)

    return unless_patterns


@functools.cache
def _formats() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name in LINKS:
        checker.checks(name)(is_link)
    return checker


def is_link(value: object) -> bool:
    """Whether a text is an http(s) URL; what is no text has no format."""
    if not isinstance(value, str):
        return True
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    whole = value.isprintable() and " " not in value
    return whole and parts.scheme in ("http", "https") and bool(parts.hostname)
