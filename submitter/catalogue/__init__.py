"""The models whose inputs can be checked without asking the API."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from submitter.api.models import Model
from submitter.catalogue.validation import check
from submitter.errors import Fault

__all__ = ["Fault", "builtin", "builtin_model", "builtin_models", "check"]

_HERE = Path(__file__).parent


def builtin(model_id: str) -> Mapping[str, Any] | None:
    """The JSON Schema of a built-in model's input; None for any other model."""
    if model_id not in builtin_models():
        return None
    return cast("dict[str, Any]", json.loads((_HERE / f"{model_id}.json").read_bytes()))


def builtin_model(model_id: str) -> Model | None:
    """A built-in model with its documented price, if any; None for any other model."""
    schema = builtin(model_id)
    if schema is None:
        return None
    about = schema["x-model"]
    return Model(
        id=model_id,
        name=model_id,
        description=schema["description"],
        type=about["type"],
        base_price=about.get("base_price"),
        schema=schema,
    )


def builtin_models() -> list[str]:
    """The ids of the built-in models, sorted: each is its schema's path, without `.json`."""
    return list(_models())


@functools.cache
def _models() -> tuple[str, ...]:
    found = (path.relative_to(_HERE) for path in _HERE.rglob("*.json"))
    return tuple(sorted(path.with_suffix("").as_posix() for path in found))
