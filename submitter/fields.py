"""Fields of an input that a person wrote as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from submitter.api.models import Model
from submitter.prediction import JSON


def properties(model: Model | None) -> Mapping[str, JSON]:
    """The schemas of a model's fields, as far as they are known."""
    found = (model.schema or {}).get("properties") if model else None
    return found if isinstance(found, dict) else {}


def read_field(text: str, schema: JSON) -> JSON:
    """Read one field: JSON, unless it is text by its schema, or no JSON."""
    types = schema.get("type") if isinstance(schema, dict) else None
    if types == "string" or (isinstance(types, list) and "string" in types):
        return text
    try:
        return cast("JSON", json.loads(text))
    except (ValueError, RecursionError):
        return text
