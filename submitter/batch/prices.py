"""Prices of a batch: one question to the API for all inputs that cost the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from submitter.api.models import Price
from submitter.errors import ApiError, AuthFailed, Unavailable
from submitter.prediction import JSON
from submitter.submit.files import takes_files

MAX_CONCURRENT_PRICE_REQUESTS = 8
"""Price requests in progress at the same time."""

# Fields that differ from row to row and do not change the price.
_FREE = re.compile(r"prompt|^text$|^seed$")

# Such as 720p, 16:9, 1024*1024.
_MEASURE = re.compile(r"\d[\w.:*-]{0,15}")


@dataclass(slots=True)
class _PriceGroup:
    """Inputs that cost the same.

    Attributes:
        input: the one with the longest texts; if a model bills by length, its price is the highest.
        length: characters of its texts.
        cost: USD; None if the API has no price.
    """

    input: Mapping[str, JSON] = field(repr=False)
    length: int
    cost: float | None = None


class Prices:
    """The prices of one batch.

    Args:
        ask: requests the price of an input from the API.
        schemas: schemas of the model's fields.
    """

    def __init__(
        self,
        ask: Callable[[Mapping[str, JSON]], Awaitable[Price]],
        schemas: Mapping[str, JSON],
    ) -> None:
        self._ask = ask
        self._schemas = schemas
        self._numbers: dict[str, int] = {}
        self._groups: list[_PriceGroup] = []

    def add(self, input: Mapping[str, JSON]) -> int:
        """Add an input; returns the number of its price group."""
        relevant = {name: value for name, value in input.items() if self._matters(name, value)}
        key = json.dumps(relevant, sort_keys=True)
        length = sum(len(value) for value in input.values() if isinstance(value, str))
        number = self._numbers.setdefault(key, len(self._groups))
        if number == len(self._groups):
            self._groups.append(_PriceGroup(input, length))
        elif length > self._groups[number].length:
            self._groups[number] = _PriceGroup(input, length)
        return number

    async def ask(self) -> Unavailable | None:
        """Request the price of each group.

        Returns:
            The error, if the API was not available for all of them.

        Raises:
            AuthFailed: the API does not accept the key.
        """
        left = iter(self._groups)
        asking = [
            self._ask_for(left)
            for _ in range(min(MAX_CONCURRENT_PRICE_REQUESTS, len(self._groups)))
        ]
        failures = await asyncio.gather(*asking)
        return next(filter(None, failures), None)

    def cost(self, number: int) -> float | None:
        """USD of a price group; None if the API has no price."""
        return self._groups[number].cost

    async def _ask_for(self, left: Iterator[_PriceGroup]) -> Unavailable | None:
        for offer in left:
            try:
                offer.cost = (await self._ask(offer.input)).discounted
            except AuthFailed:
                raise
            except Unavailable as error:
                return error
            except ApiError:
                continue  # such as a model that has no price
        return None

    def _matters(self, name: str, value: JSON) -> bool:
        schema = self._schemas.get(name)
        if _FREE.search(name) or takes_files(name, schema):
            return False
        listed = isinstance(schema, dict) and "enum" in schema
        return listed or not isinstance(value, str) or _MEASURE.fullmatch(value) is not None
