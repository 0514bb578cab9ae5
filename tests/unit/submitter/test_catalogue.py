"""The built-in schemas and the check of inputs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from submitter.catalogue import builtin, builtin_models, check

KLING = "kwaivgi/kling-v2.1-i2v-standard"
GOOD: dict[str, Any] = {"prompt": "waves", "image": "https://example.com/a.png"}


def faults(schema: dict[str, Any] | None = None, /, **input: Any) -> dict[str, str]:
    found = check(builtin(KLING) or {} if schema is None else schema, input)
    return {fault.path: fault.message for fault in found}


def test_the_model_of_the_seed_is_built_in() -> None:
    """The catalogue knows the model by its id, and only by that."""
    assert KLING in builtin_models()
    assert builtin("kwaivgi/kling") is None
    assert builtin("../errors") is None


@pytest.mark.parametrize("model", builtin_models())
def test_schemas_are_schemas(model: str) -> None:
    """Every built-in schema is valid, and closed to unknown fields."""
    schema = builtin(model)
    assert schema is not None
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == model
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"duration": 10, "guidance_scale": 0, "negative_prompt": ""},
        {"prompt": "x" * 2500, "guidance_scale": 1.0},
        {"image": "http://127.0.0.1:9/a.jpeg?token=1"},
    ],
)
def test_good_inputs(more: dict[str, Any]) -> None:
    """What the vendor documents passes."""
    assert faults(**{**GOOD, **more}) == {}


def test_all_faults_at_once() -> None:
    """Every fault is reported, each with its path and what was expected."""
    found = faults(
        prompt="x" * 2501, duration=7, guidance_scale=1.5, negative_prompt=3, promt="y", seed=1
    )
    assert found == {
        "image": "is required",
        "prompt": "must have at most 2500 characters, has 2501",
        "duration": "must be one of 5, 10",
        "guidance_scale": "must be at most 1",
        "negative_prompt": "must be of type string, is a number",
        "promt": "is not a field of this model; did you mean prompt?",
        "seed": "is not a field of this model; it has prompt, image, negative_prompt, "
        "guidance_scale, duration",
    }


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ("first.png", "upload a local file"),
        ("/home/me/first.png", "upload a local file"),
        ("file:///first.png", "http(s)"),
        ("data:image/png;base64,AAAA", "data:"),
        ("https://", "http(s)"),
        ("https://exa mple.com/a.png", "http(s)"),
        ("https://[half/a.png", "http(s)"),
        ("https://example.com/\n", "http(s)"),
    ],
)
def test_an_image_that_is_no_url(image: str, word: str) -> None:
    """A first frame that is no URL is refused with a way out."""
    assert word in faults(prompt="x", image=image)["image"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have(number: float) -> None:
    """F11: NaN and infinities are one fault each, also where a schema would let them pass."""
    assert faults(**GOOD, guidance_scale=number) == {"guidance_scale": "is not a finite number"}


@pytest.mark.parametrize("value", [True, "5", None, [5], {"a": 5}])
def test_types_are_named(value: Any) -> None:
    """A wrong type is told as a person would say it."""
    assert "must be of type integer, is " in faults(**GOOD, duration=value)["duration"]


def test_an_unsound_input_is_not_walked_by_the_validator() -> None:
    """F11: with names that are no text, their faults alone are told."""
    found = check(builtin(KLING) or {}, {"prompt": {1: 2}})
    assert [fault.path for fault in found] == ["prompt[1]"]


SECRET = "the prompt nobody may see"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"maxLength": 3}}},
        {"properties": {"a": {"enum": ["x"]}}},
        {"properties": {"a": {"const": "x"}}},
        {"properties": {"a": {"contentEncoding": "base64", "allOf": [{"maxLength": 1}]}}},
        {"properties": {"a": {"type": ["integer", "null"]}}},
        {"properties": {"a": {"format": "uri"}}},
        {"properties": {"a": {"not": {}}}},
        {"properties": {"a": False}},
        {"properties": {"a": {"anyOf": [{"type": "null"}, {"type": "integer"}]}}},
        {"propertyNames": {"maxLength": 0}},
        {"maxProperties": 0},
    ],
)
def test_faults_do_not_repeat_values(schema: dict[str, Any]) -> None:
    """F16: whatever rule an input breaks, its value is not in the message."""
    found = faults(schema, a=SECRET)
    assert found
    assert SECRET not in str(found)


def test_rules_of_other_schemas() -> None:
    """The rules that the API's other models use have words too."""
    schema: dict[str, Any] = {
        "properties": {
            "a": {"type": "array", "minItems": 1, "items": {"required": ["path"]}},
            "b": {"items": {"properties": {"x": {"exclusiveMinimum": 0}}, "required": ["y"]}},
            "c": {"enum": ["x" * 200]},
            "d": {"additionalProperties": {"type": "null"}},
        }
    }
    assert faults(schema, a=[], b=[{"x": 0}], c=1, d={"k": 1}) == {
        "a": "must have at least 1 items, has 0",
        "b[0].x": "must be more than 0",
        "b[0].y": "is required",
        "c": f'must be one of "{"x" * 119}…',
        "d.k": "must be of type null, is a number",
    }


def test_an_empty_schema_takes_any_object() -> None:
    """A model that is not built in is only checked for being JSON."""
    assert faults({}, anything=[1, {"b": None}]) == {}
    assert faults({}, bad=b"") == {"bad": "is a bytes, which JSON does not have"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.text() | st.sampled_from(["prompt", "image", "duration", "guidance_scale"]),
        anything,
        max_size=6,
    )
)
def test_any_input_is_checked(input: dict[str, Any]) -> None:
    """F11: no input makes the check raise, and every fault has a bounded line and a path."""
    for fault in check(builtin(KLING) or {}, input):
        assert fault.path
        assert len(str(fault)) < 1000
        assert "\n" not in fault.message
