"""Models and prices of the API; unknown and malformed fields are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Model:
    """Model of the catalogue.

    Attributes:
        id: such as `kwaivgi/kling-v2.1-i2v-standard`.
        name: display name; the id if the API gives none.
        description: one paragraph; may be empty.
        type: such as `image-to-video`; may be empty.
        base_price: USD for the smallest task; None if the API does not say.
        schema: JSON Schema of the input; None if the API gives none.
    """

    id: str
    name: str
    description: str = ""
    type: str = ""
    base_price: float | None = None
    schema: Mapping[str, JSON] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, data: JSON) -> Model | None:
        """Read a model from parsed JSON; None if it has no id."""
        if not isinstance(data, dict):
            return None
        id = data.get("model_id")
        if not (isinstance(id, str) and id):
            return None
        return cls(
            id=id,
            name=_text(data.get("name")) or id,
            description=_text(data.get("description")),
            type=_text(data.get("type")),
            base_price=dollars(data.get("base_price")),
            schema=_schema(data.get("api_schema")),
        )


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one task.

    Attributes:
        price: USD.
        discounted: USD after the account's discount; the price if there is no discount.
    """

    price: float
    discounted: float

    @classmethod
    def parse(cls, data: JSON) -> Price | None:
        """Read a price from parsed JSON; None if it has none."""
        if not isinstance(data, dict):
            return None
        price, discounted = dollars(data.get("price")), dollars(data.get("discounted_price"))
        if price is None or price < 0:
            return None
        # 0 may mean "free" or "no discount"; the second keeps a spending cap safe.
        return cls(price, discounted if discounted is not None and discounted > 0 else price)


def dollars(value: JSON) -> float | None:
    """A finite number, or None; NaN, which Python reads from JSON, would pass every cap."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) else None


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""


def _schema(value: JSON) -> Mapping[str, JSON] | None:
    """The first request schema of a model."""
    schemas = value.get("api_schemas") if isinstance(value, dict) else None
    for each in schemas if isinstance(schemas, list) else []:
        schema = each.get("request_schema") if isinstance(each, dict) else None
        if isinstance(schema, dict):
            return schema
    return None
