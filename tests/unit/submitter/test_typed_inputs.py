"""The typed inputs of the Kling family, held against the schemas of their models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from submitter.catalogue import builtin, builtin_models, check
from submitter.catalogue.kling import (
    KlingImageToVideo,
    KlingStartEndFrame,
    KlingTextToVideo,
    Tier,
    TypedInput,
)
from submitter.errors import BadInput

URL = "https://example.com/a.png"

EXAMPLES: list[TypedInput] = [
    *(KlingImageToVideo(prompt="p", image=URL, tier=tier) for tier in get_args(Tier)),
    KlingStartEndFrame(prompt="p", image=URL, end_image=URL),
    KlingTextToVideo(prompt="p"),
]
FULL: list[TypedInput] = [
    KlingImageToVideo(
        prompt="p", image=URL, negative_prompt="n", guidance_scale=0.0, duration=10, tier="pro"
    ),
    KlingStartEndFrame(
        prompt="p", image=URL, end_image=URL, negative_prompt="", guidance_scale=1, duration=5
    ),
    KlingTextToVideo(
        prompt="p", negative_prompt="n", guidance_scale=0.5, duration=5, aspect_ratio="9:16"
    ),
]

PYTHON = {"string": str, "integer": int, "number": float}


def name(typed: TypedInput) -> str:
    return typed.model


def test_every_built_in_model_has_a_typed_input() -> None:
    """The built-in family, and nothing else."""
    assert sorted(map(name, EXAMPLES)) == builtin_models()


@pytest.mark.parametrize("typed", EXAMPLES, ids=name)
def test_the_fields_are_those_of_the_schema(typed: Any) -> None:
    """Field by field, both ways: names, what is required, types and literals."""
    schema = builtin(typed.model) or {}
    own = {each.name: each for each in dataclasses.fields(typed) if each.name != "tier"}
    assert set(own) == set(schema["properties"])
    hints = get_type_hints(type(typed))
    for field, about in schema["properties"].items():
        is_required = own[field].default is dataclasses.MISSING
        assert is_required == (field in schema["required"])
        types = set(get_args(hints[field])) if get_args(hints[field]) else {hints[field]}
        assert (NoneType in types) != is_required
        [literal] = [each for each in types if get_origin(each) is Literal] or [None]
        assert list(get_args(literal)) == about.get("enum", [])
        if "x-media" in about:
            assert types == {str, bytes, Path}
        elif literal is None:
            assert PYTHON[about["type"]] in types


@pytest.mark.parametrize("typed", [*EXAMPLES, *FULL], ids=name)
def test_what_is_given_is_the_input(typed: TypedInput) -> None:
    """What is None is left out, what is 0 or empty is not, and the schema takes it."""
    given = typed.input()
    assert None not in given.values()
    assert "tier" not in given
    assert check(builtin(typed.model) or {}, given) == []


def test_every_field_is_passed_on() -> None:
    """No field is lost on the way."""
    for typed in FULL:
        assert set(typed.input()) == set((builtin(typed.model) or {})["properties"])


def test_an_unknown_tier_is_refused() -> None:
    """There is no model of that name to be asked for."""
    with pytest.raises(BadInput) as caught:
        KlingImageToVideo(prompt="p", image=URL, tier="ultra")  # type: ignore[arg-type]
    assert [fault.path for fault in caught.value.faults] == ["tier"]


def test_they_hide_what_is_private() -> None:
    """F16: prompts and pictures are not in the repr."""
    for typed in (
        KlingImageToVideo(prompt="SECRET", image="SECRET", negative_prompt="SECRET"),
        KlingStartEndFrame(prompt="SECRET", image="SECRET", end_image=b"SECRET"),
        KlingTextToVideo(prompt="SECRET", negative_prompt="SECRET"),
    ):
        assert "SECRET" not in repr(typed)


def test_they_are_values() -> None:
    """They cannot be changed, and have no order of arguments to get wrong."""
    typed = KlingTextToVideo(prompt="p")
    with pytest.raises(dataclasses.FrozenInstanceError):
        typed.prompt = "q"  # type: ignore[misc]
    with pytest.raises(TypeError):
        KlingTextToVideo("p")  # type: ignore[call-arg]
