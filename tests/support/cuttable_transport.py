"""A wire to a real server that can be looked at and cut, a clock, and what the suites submit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from submitter.ledger.base import Entry, Intent, IntentWritten, Ledger, Limits
from submitter.prediction import JSON

KLING = "kwaivgi/kling-v2.1-i2v-standard"
PRO = "kwaivgi/kling-v2.1-i2v-pro"
IMAGE = "https://example.com/first.png"
NOW = 1_772_356_368.0

BOTH_LEDGERS = pytest.mark.parametrize("ledger", ["memory", "sqlite"], indirect=True)

Meddle = Callable[[httpx.Request], Awaitable[httpx.Response | None]]


class Wire(httpx.AsyncBaseTransport):
    """The real transport; keeps what was sent, and asks `meddle` about each request first."""

    def __init__(self, meddle: Meddle | None = None) -> None:
        self.meddle = meddle
        self.sent: list[httpx.Request] = []
        self._inner = httpx.AsyncHTTPTransport(verify=False)  # plain HTTP; loading roots takes time

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.sent.append(request)
        if self.meddle is not None and (answer := await self.meddle(request)) is not None:
            return answer
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def count(self, method: str, ending: str) -> int:
        """Requests of a method whose path ends so."""
        return sum(
            request.method == method and request.url.path.endswith(ending) for request in self.sent
        )


def answering(where: str, *answers: httpx.Response) -> Meddle:
    """Answer requests whose path holds a text, in turn; the others go on to the server."""
    left = list(answers)

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        return left.pop(0) if left and where in request.url.path else None

    return meddle


def intent(key: str, now: float, input: dict[str, JSON] | None = None, **more: Any) -> Intent:
    whole = {"prompt": "waves", "image": IMAGE} if input is None else input
    return Intent(
        **{
            "key": key,
            "model": KLING,
            "input": whole,
            "digest": f"{whole}",
            "until": now + 65,
            **more,
        }
    )


async def intended(ledger: Ledger, one: Intent, now: float) -> Entry:
    answer = await ledger.intend(one, Limits(), now)
    assert isinstance(answer, IntentWritten)
    assert answer.fresh
    return answer.entry
