"""Validation of an input against its model's JSON Schema, offline and bounded.

The live catalogue's schemas come over the network. Such a schema may refer to other addresses,
repeat itself without end, or hold an expression that takes for ever; none of it may stop a submit,
because the API checks each input anyway. All faults are reported at once, in our own words.
"""

from __future__ import annotations

import contextvars
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from submitter.errors import Fault, suggest
from submitter.submit.json_check import json_faults, member_path

if TYPE_CHECKING:
    from jsonschema import ValidationError


if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator

    Rule: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]

MAX_SCHEMA_CHARS = 65_536
"""Characters of one schema as JSON; a larger one is not looked into."""

MAX_RULES = 30_000
"""Rules that one check may apply; a schema can multiply them with a few references."""

MAX_NESTED_RULES = 64
"""Depth of rules within rules. A definition that refers to itself has no end, and Python's own
recursion limit would make the library for references panic."""

LINKS = ("uri", "url")
"""The formats that are checked; others are treated as annotations."""

# These run regular expressions, which can take for ever, or compare each item with each.
_IGNORED_RULES = (
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
)

# Where these stand, leaving a rule out could make a fault of what is none.
_NEGATING_RULES = ("contains", "if", "not", "oneOf")


@dataclass(slots=True)
class _Budget:
    steps: int = 0
    inside: int = 0


_budget: contextvars.ContextVar[_Budget] = contextvars.ContextVar("spent")


class _BudgetExceeded(Exception):
    pass


def errors(schema: Mapping[str, Any], value: object) -> list[ValidationError]:
    """Find where a value breaks its schema.

    Args:
        schema: JSON Schema, 2020-12; an unusable one finds nothing.
        value: what is to be sent; sound JSON, as `submitter.submit.json_check` understands it.

    Returns:
        The validator's errors without their texts, which would repeat the value.
    """
    try:
        text = json.dumps(dict(schema))
    except (TypeError, ValueError, RecursionError):
        return []
    if len(text) > MAX_SCHEMA_CHARS:
        return []
    token = _budget.set(_Budget())
    try:
        validator = _validator(text)
        return list(validator.iter_errors(cast("Any", value))) if validator else []
    # References that lead nowhere or in circles, and whatever else a schema can set off in there.
    except Exception:  # noqa: BLE001
        return []
    finally:
        _budget.reset(token)


@functools.lru_cache(maxsize=64)
def _validator(text: str) -> Validator | None:
    """The validator of a schema, or None if the schema cannot be used."""
    from jsonschema import SchemaError
    from referencing import Registry

    schema = json.loads(text)
    schema.pop("$schema", None)
    faults, _ = json_faults(schema)
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
    return not (_has(text, *_IGNORED_RULES) and _has(text, *_NEGATING_RULES))


def _has(text: str, *names: str) -> bool:
    """True if the JSON contains one of these names; quotes inside a text are escaped."""
    return any(f'"{name}": ' in text for name in names)


@functools.cache
def _dialect() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    known: Mapping[str, Rule] = Draft202012Validator.VALIDATORS
    rules = {name: _counted(rule) for name, rule in known.items() if name not in _IGNORED_RULES}
    rules |= dict.fromkeys(_IGNORED_RULES, _nothing)
    rules["additionalProperties"] = _additional(rules["additionalProperties"])
    made = extend(Draft202012Validator, rules)  # type: ignore[no-untyped-call]
    return cast("type[Validator]", made)


def _counted(rule: Rule) -> Rule:
    """Have each use of a rule counted, and its errors silent."""

    def count(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        if value is None and schema.get("nullable") is True:
            return  # OpenAPI's word, which JSON Schema does not have
        spent = _budget.get()
        spent.steps += len(wanted) if isinstance(wanted, list | dict) else 1
        if spent.steps > MAX_RULES or spent.inside == MAX_NESTED_RULES:
            raise _BudgetExceeded
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
        # Finding the additional fields would run the regular expressions of `patternProperties`.
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
    """True for an http(s) URL, and for any value that is not text: it has no format."""
    if not isinstance(value, str):
        return True
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    whole = value.isprintable() and " " not in value
    return whole and parts.scheme in ("http", "https") and bool(parts.hostname)


_MAX_RULE = 120

_TYPES = {
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "an array",
    type(None): "null",
}

_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters, has {size}",
    "maxLength": "must have at most {} characters, has {size}",
    "minItems": "must have at least {} items, has {size}",
    "maxItems": "must have at most {} items, has {size}",
    "minProperties": "must have at least {} fields, has {size}",
    "maxProperties": "must have at most {} fields, has {size}",
    "enum": "must be one of {}",
    "const": "must be {}",
}


def check(schema: Mapping[str, Any], input: Mapping[str, Any]) -> list[Fault]:
    """Find everything that is wrong with an input.

    Args:
        schema: JSON Schema (2020-12) of the input; an empty one takes any JSON object, and so
            does one that is broken itself: there the API alone checks.
        input: what is to be sent.

    Returns:
        The faults, each with its path; empty if the input is valid.
    """
    instance = dict(input)
    faults, sound = json_faults(instance)
    if sound:
        known = {fault.path for fault in faults}
        found = errors(schema, instance)
        faults.extend(fault for fault in _faults(found) if fault.path not in known)
    return list(dict.fromkeys(faults))


def _faults(errors: list[ValidationError]) -> Iterator[Fault]:
    mistyped = {error.json_path for error in errors if error.validator == "type"}
    for error in errors:
        # What is of the wrong type breaks other rules too, which tells nothing more.
        if error.validator == "type" or error.json_path not in mistyped:
            yield from _explain(error)


def _explain(error: ValidationError) -> Iterator[Fault]:
    path = functools.reduce(member_path, error.absolute_path, "")
    keyword = str(error.validator)
    rule: Any = error.validator_value
    value: Any = error.instance
    if keyword == "required":
        yield from _missing(path, rule, value, "is required")
    elif keyword == "dependentRequired":
        for name in (name for name in rule if name in value):
            message = f"is required where {_shown(name)} is given"
            yield from _missing(path, rule[name], value, message)
    elif keyword == "additionalProperties" and rule is False:
        fields = _properties(error)
        unknown = (name for name in value if name not in fields)
        yield from (Fault(member_path(path, name), _unknown(name, fields)) for name in unknown)
    elif keyword in ("anyOf", "oneOf"):
        yield from _alternatives(error, path or "input")
    else:
        yield Fault(path or "input", _rule(keyword, rule, value))


def _missing(path: str, names: Any, value: Any, message: str) -> Iterator[Fault]:
    return (Fault(member_path(path, name), message) for name in names if name not in value)


def _alternatives(error: ValidationError, path: str) -> Iterator[Fault]:
    """The faults against the closest of several alternatives."""
    shapes: dict[object, list[ValidationError]] = {}
    for inner in error.context:
        shapes.setdefault(inner.relative_schema_path[0], []).append(inner)
    if not shapes:
        yield Fault(path, "fits more than one of the shapes of which it may have one")
        return
    of_type = [shape for shape in shapes.values() if not any(map(_is_mistyped, shape))]
    if not of_type:
        types: list[str] = []
        for inner in filter(_is_mistyped, error.context):
            rule: Any = inner.validator_value
            types += [rule] if isinstance(rule, str) else rule
        yield Fault(path, _rule("type", list(dict.fromkeys(types)), error.instance))
        return
    for fault in _faults(min(of_type, key=len)):
        other = f" (or another of the {len(shapes)} shapes it may have)" if len(of_type) > 1 else ""
        yield Fault(fault.path, fault.message + other)


def _is_mistyped(inner: ValidationError) -> bool:
    return inner.validator == "type" and not inner.relative_path


def _rule(keyword: str, rule: Any, value: Any) -> str:
    if keyword == "type":
        names = [rule] if isinstance(rule, str) else list(rule)
        return f"must be of type {' or '.join(names)}, is {_TYPES.get(type(value), 'a number')}"
    if keyword == "format":
        return _not_a_link(value) if rule in LINKS else "is not in the format"
    if keyword in _LIMITS:
        size = len(value) if isinstance(value, str | list | dict) else 0
        shown = ", ".join(map(_shown, rule)) if keyword == "enum" else _shown(rule)
        return _LIMITS[keyword].format(_bounded(shown), size=size)
    if keyword == "None":
        return "holds what the schema does not allow"
    return f"breaks the schema's rule `{keyword}`"


def _properties(error: ValidationError) -> list[str]:
    schema = error.schema
    return list(schema.get("properties", ())) if isinstance(schema, Mapping) else []


def _unknown(name: str, fields: list[str]) -> str:
    printable = [field for field in fields if field.isprintable()]
    hint = suggest(name, printable) or f"; it has {_bounded(', '.join(printable))}"
    return f"is not a field of this model{hint}"


def _shown(rule: Any) -> str:
    return _bounded(json.dumps(rule, ensure_ascii=False))


def _bounded(text: str) -> str:
    """Untrusted text on one line, without terminal control characters."""
    short = text if len(text) <= _MAX_RULE else f"{text[:_MAX_RULE]}…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)


def _not_a_link(value: str) -> str:
    if value[:5].lower() == "data:":
        return "must be an http(s) URL; whether the API takes data: URIs is not documented"
    if "://" in value:
        return "must be an http(s) URL"
    return "must be an http(s) URL; upload a local file first and give its URL here"
