"""Whatever input is held against whatever schema: the check ends, with faults in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.catalogue import builtin, builtin_models, check
from submitter.errors import Fault
from submitter.submit.files import prepare

FIELDS = sorted({name for id in builtin_models() for name in (builtin(id) or {})["properties"]})

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["https://example.com/a.png", "data:,", "/", "9:16", 5, 0.5])
)
values = st.recursive(
    leaves | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=6,
)
inputs = st.dictionaries(st.text(max_size=8) | st.sampled_from(FIELDS), values, max_size=6)

KEYWORDS = (
    "$defs",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "default",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "enum",
    "exclusiveMaximum",
    "format",
    "if",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "then",
    "type",
    "unevaluatedProperties",
    "uniqueItems",
    "x-media",
    "x-ui-component",
    "x-order-properties",
)

words = st.sampled_from(
    ["string", "integer", "object", "array", "null", "uri", "#", "#/$defs/a", "a", "(", "(a+)+$"]
)
# Half of it would be a schema, half of it only looks like one.
schemas = st.recursive(
    leaves | words | st.lists(words, max_size=2),
    lambda inner: (
        st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
        | st.dictionaries(st.sampled_from([*FIELDS, "a"]), inner, max_size=3)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=12,
)
wholes = st.dictionaries(st.sampled_from(KEYWORDS), schemas, max_size=5)


def hold(found: list[Fault]) -> None:
    """Every fault has a path and one bounded, printable line."""
    for fault in found:
        assert fault.path
        assert fault.message
        assert str(fault).isprintable()
        assert len(str(fault)) < 1000


@pytest.mark.parametrize("model", builtin_models())
@given(input=inputs)
def test_any_input_of_a_built_in_model_is_checked(model: str, input: dict[str, Any]) -> None:
    """F11: no input makes the check raise."""
    schema = builtin(model) or {}
    hold(check(schema, input))
    prepared = prepare(input, schema)
    hold(list(prepared.faults))
    hold(check(schema, prepared.input))


@given(schema=wholes, input=inputs)
def test_any_schema_is_coped_with(schema: dict[str, Any], input: dict[str, Any]) -> None:
    """F11: no schema of a stranger makes the check or the look for files raise."""
    hold(check(schema, input))
    prepared = prepare(input, schema)
    hold(list(prepared.faults))
    hold(check(schema, prepared.input))
