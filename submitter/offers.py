"""What the API offers, and at what price; read leniently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue.

    Attributes:
        id: such as `kwaivgi/kling-v2.1-i2v-standard`.
        name: as the API shows it; the id where it has none.
        description: one paragraph; may be empty.
        type: such as `image-to-video`; may be empty.
        base_price: USD for the smallest task; None where the API does not say.
        schema: JSON Schema of the input; None where the API gives none.
    """

    id: str
    name: str
    description: str = ""
    type: str = ""
    base_price: float | None = None
    schema: Mapping[str, JSON] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Price:
    """What one task would cost.

    Attributes:
        price: USD.
        discounted: USD after the account's discount; the price where there is none.
    """

    price: float
    discounted: float
