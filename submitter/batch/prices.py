"""What rows would cost: the API is asked once for all that cannot differ in price."""

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

AT_ONCE = 8
"""Questions that are asked at one time."""

# Fields in which no two rows need be alike.
_FREE = re.compile(r"prompt|^text$|^seed$")

# Such as 720p, 16:9, 1024*1024.
_MEASURE = re.compile(r"\d[\w.:*-]{0,15}")


@dataclass(slots=True)
class _Offer:
    """Inputs that cost the same.

    Attributes:
        input: the one with the longest texts, should a model be paid by their length: the price
            is then one that none of the others exceeds.
        length: of its texts.
        cost: USD; None where the API does not say.
    """

    input: Mapping[str, JSON] = field(repr=False)
    length: int
    cost: float | None = None


class Prices:
    """The prices of one batch.

    Args:
        ask: asks the API for the price of an input.
        schemas: of the model's fields.
    """

    def __init__(
        self,
        ask: Callable[[Mapping[str, JSON]], Awaitable[Price]],
        schemas: Mapping[str, JSON],
    ) -> None:
        self._ask = ask
        self._schemas = schemas
        self._numbers: dict[str, int] = {}
        self._offers: list[_Offer] = []

    def add(self, input: Mapping[str, JSON]) -> int:
        """Take an input in; the number of its price."""
        relevant = {name: value for name, value in input.items() if self._matters(name, value)}
        key = json.dumps(relevant, sort_keys=True)
        length = sum(len(value) for value in input.values() if isinstance(value, str))
        number = self._numbers.setdefault(key, len(self._offers))
        if number == len(self._offers):
            self._offers.append(_Offer(input, length))
        elif length > self._offers[number].length:
            self._offers[number] = _Offer(input, length)
        return number

    async def ask(self) -> Unavailable | None:
        """Ask for each price once.

        Returns:
            Why they could not all be had, where the API is away.

        Raises:
            AuthFailed: it does not accept the key.
        """
        left = iter(self._offers)
        asking = [self._ask_for(left) for _ in range(min(AT_ONCE, len(self._offers)))]
        failures = await asyncio.gather(*asking)
        return next(filter(None, failures), None)

    def cost(self, number: int) -> float | None:
        """USD; None where the API does not say."""
        return self._offers[number].cost

    async def _ask_for(self, left: Iterator[_Offer]) -> Unavailable | None:
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
