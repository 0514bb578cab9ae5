"""Schemas of strangers: whatever they hold, a check ends, and makes no fault of what is none."""

from __future__ import annotations

from typing import Any

import pytest

from submitter.catalogue import check
from submitter.catalogue.validation import MAX_SCHEMA_CHARS

A: dict[str, Any] = {"a": "x"}


def faults(schema: dict[str, Any], **input: Any) -> dict[str, str]:
    return {fault.path: fault.message for fault in check(schema, input)}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"maxProperties": 0}
    for _ in range(depth):
        schema = {"allOf": [schema]}
    return schema


def doubling(count: int) -> dict[str, Any]:
    """Each definition refers twice to the next one: 2**count rules in a few lines."""
    links = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(count)}
    return {"$defs": {**links, f"d{count}": {"maxProperties": 0}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5},
        {"pattern": "("},
        {"required": "prompt"},
        {"properties": []},
        {"properties": {"a": 5}},
        {"enum": "abc"},
        {"multipleOf": 0},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$ref": "#/enum/0", "enum": ["x"]},
        {"$ref": "%ff://["},
        {"maxProperties": 0, "$ref": "other.json"},
        {"maxProperties": 0, "x": float("nan")},
        {"maxProperties": 0, "x": object()},
        {"maxProperties": 0, "x": ["y" * MAX_SCHEMA_CHARS]},
        {"maxProperties": 0, "x": [[]] * 10_000},
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}},
        {"not": {"pattern": "y"}},
        {"oneOf": [{"type": "object"}, {"required": ["b"]}], "uniqueItems": True},
        nested(60),
        nested(3000),
        doubling(28),
        doubling(60),
    ],
    ids=range(23),
)
def test_a_broken_schema_refuses_nothing(schema: dict[str, Any]) -> None:
    """F11: what cannot be checked here is left to the API; no traceback, no hang, no fault."""
    assert faults(schema, **A) == {}


def test_with_a_broken_schema_the_input_must_still_be_json() -> None:
    """F11: what no schema is needed for is found without one."""
    assert "finite" in faults({"type": 5}, a=float("nan"))["a"]


@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": "(a+)+$"},
        {"patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
        {"unevaluatedProperties": False, "patternProperties": {"(a|a)*$": {}}},
    ],
    ids=range(3),
)
def test_a_strangers_expressions_are_not_run(rule: dict[str, Any]) -> None:
    """An expression that would take for ever is left to the API; the other rules hold."""
    name = "a" * 60 + "!"
    schema = {"properties": {"b": {"type": "integer"}, name: {}}, **rule}
    schema["properties"]["c"] = rule
    found = faults(schema, **{name: 1, "b": "x", "c": name, "d": {}})
    assert found == {"b": "must be of type integer, is text"}


def test_a_deep_stack_is_no_trouble() -> None:
    """A check far down in a caller's own recursion ends like any other."""

    def down(left: int) -> dict[str, str]:
        return down(left - 1) if left else faults({"properties": {"a": {"$ref": "#"}}}, a={})

    assert down(400) == {}


def test_definitions_are_followed() -> None:
    """References inside the schema work."""
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert faults(schema, **A) == {"a": "must be of type integer, is text"}


def test_nullable_is_understood() -> None:
    """OpenAPI's `nullable`, which live schemas use, lets null pass."""
    schema = {"properties": {"a": {"type": "string", "enum": ["x"], "nullable": True}}}
    assert faults(schema, a=None) == {}
    assert faults(schema, a="y") == {"a": 'must be one of "x"'}


SIZE = {
    "anyOf": [
        {"type": "string", "enum": ["small", "large"]},
        {
            "type": "object",
            "required": ["width", "height"],
            "properties": {"width": {"maximum": 9}},
        },
        {"type": "object", "required": ["preset"], "additionalProperties": False},
    ]
}


@pytest.mark.parametrize(
    ("rule", "value", "path", "said"),
    [
        (SIZE, 5, "a", "must be of type string or object, is a number"),
        (SIZE, "huge", "a", 'must be one of "small", "large"'),
        (
            SIZE,
            {"width": 3},
            "a.height",
            "is required (or another of the 3 shapes it may have)",
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": ["null", "integer"]}]},
            "x",
            "a",
            "must be of type integer or null, is text",
        ),
        (
            {"oneOf": [{"minimum": 1}, {"minimum": 2}]},
            3,
            "a",
            "fits more than one of the shapes of which it may have one",
        ),
        (
            {"oneOf": [{"type": "null"}, {"type": "string", "maxLength": 2}]},
            "xyz",
            "a",
            "must have at most 2 characters, has 3",
        ),
        ({"dependentRequired": {"k": ["l"]}}, {"k": 1}, "a.l", 'is required where "k" is given'),
        ({"maxProperties": 0}, {"k": 1}, "a", "must have at most 0 fields, has 1"),
        (False, 1, "input", "holds what the schema does not allow"),
        ({"not": {"type": "string"}}, "x", "a", "breaks the schema's rule `not`"),
        ({"if": {"minimum": 5}, "then": {"maximum": 7}}, 8, "a", "must be at most 7"),
    ],
    ids=range(11),
)
def test_rules_of_live_schemas_have_words(rule: Any, value: Any, path: str, said: str) -> None:
    """What has several shapes is told of the nearest one, with its path."""
    assert faults({"properties": {"a": rule}}, a=value) == {path: said}


def test_a_strangers_words_cannot_steer_a_terminal() -> None:
    """F17: names and values of a schema are printed without control characters."""
    schema = {
        "properties": {"ab\x1b[31m": {}, "c": {"const": "\x9b31m"}},
        "additionalProperties": False,
        "required": ["\x1b]0;"],
        "dependentRequired": {"c": ["\x07"]},
    }
    found = check(schema, {"ab": 1, "c": 2})
    assert len(found) == 4
    assert all(str(fault).isprintable() for fault in found)
