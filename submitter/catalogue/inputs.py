"""Checks an input against its model's JSON Schema: all faults at once, in words of our own.

The validator's own messages repeat the value that is wrong, which may be a prompt.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from submitter.errors import Fault
from submitter.strict import unfit, within
from submitter.suggest import suggest

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError

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
    "enum": "must be one of {}",
    "const": "must be {}",
}


def check(schema: Mapping[str, Any], input: Mapping[str, Any]) -> list[Fault]:
    """Find everything that is wrong with an input.

    Args:
        schema: JSON Schema (2020-12) of the input; an empty one takes any JSON object.
        input: what is to be sent.

    Returns:
        The faults, each with its path; empty where there are none.
    """
    instance = dict(input)
    faults, sound = unfit(instance)
    if sound:
        from jsonschema import Draft202012Validator

        known = {fault.path for fault in faults}
        validator = Draft202012Validator(schema, format_checker=_formats())
        errors = list(validator.iter_errors(instance))
        mistyped = {error.json_path for error in errors if error.validator == "type"}
        for error in errors:
            # What is of the wrong type breaks other rules too, which tells nothing more.
            if error.validator == "type" or error.json_path not in mistyped:
                faults.extend(fault for fault in _explain(error) if fault.path not in known)
    return list(dict.fromkeys(faults))


def _explain(error: ValidationError) -> Iterator[Fault]:
    path = functools.reduce(within, error.absolute_path, "")
    keyword = str(error.validator)
    rule: Any = error.validator_value
    value: Any = error.instance
    if keyword == "required":
        for name in rule:
            if name not in value:
                yield Fault(within(path, name), "is required")
    elif keyword == "additionalProperties" and rule is False:
        fields = _properties(error)
        for name in value:
            if name not in fields:
                yield Fault(within(path, name), _unknown(name, fields))
    else:
        yield Fault(path or "input", _rule(keyword, rule, value))


def _rule(keyword: str, rule: Any, value: Any) -> str:
    if keyword == "type":
        names = [rule] if isinstance(rule, str) else list(rule)
        return f"must be of type {' or '.join(names)}, is {_TYPES.get(type(value), 'a number')}"
    if keyword == "format":
        return _not_a_link(value) if rule in _LINKS else f"is not in the format {_shown(rule)}"
    if keyword in _LIMITS:
        size = len(value) if isinstance(value, str | list) else 0
        shown = ", ".join(map(_shown, rule)) if keyword == "enum" else _shown(rule)
        return _LIMITS[keyword].format(_bounded(shown), size=size)
    return f"breaks the schema's rule `{keyword}`"


def _properties(error: ValidationError) -> list[str]:
    schema = error.schema
    return list(schema.get("properties", ())) if isinstance(schema, Mapping) else []


def _unknown(name: str, fields: list[str]) -> str:
    hint = suggest(name, fields) or f"; it has {_bounded(', '.join(fields))}"
    return f"is no field of this model{hint}"


def _shown(rule: Any) -> str:
    return _bounded(json.dumps(rule, ensure_ascii=False, default=str))


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_RULE else f"{text[:_MAX_RULE]}…"


_LINKS = ("uri", "url")


@functools.cache
def _formats() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name in _LINKS:
        checker.checks(name)(_is_link)
    return checker


def _is_link(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    whole = value.isprintable() and " " not in value
    return whole and parts.scheme in ("http", "https") and bool(parts.hostname)


def _not_a_link(value: str) -> str:
    if value[:5].lower() == "data:":
        return "must be an http(s) URL; whether the API takes data: URIs is not documented"
    if "://" in value:
        return "must be an http(s) URL"
    return "must be an http(s) URL; upload a local file first and give its URL here"
