"""HTTP client for chat services, which keeps to their rate limits.

A service counts messages by channel or webhook: the rate key. Requests with one rate key are sent
one after the other. If the service asks to wait, the next request waits: within the run, as long as
its timeout allows, so that a burst uses up no attempts; otherwise by a pause of the whole handler.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from receiver.errors import GiveUp, Refused, Retry
from receiver.outbound.client import LazyClient, check_reachable
from receiver.strict_json import Unreadable, parse
from submitter.api.responses import MAX_RETRY_AFTER_S, retry_after
from submitter.prediction import JSON

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_MIN_REQUEST_S = 0.5
"""Seconds that a request needs; with less time left, a run sends none."""

_MAX_WAIT_S = 60.0
"""Longest wait within a run, in seconds; for a longer one the handler is paused."""


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """Response of a chat service.

    Attributes:
        host: of the service.
        status: the HTTP status.
        headers: names are case-insensitive.
        text: the first 500 bytes of the body.
        body: the body if it is a JSON object; otherwise empty.
    """

    host: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    text: str = field(repr=False)
    body: Mapping[str, JSON] = field(repr=False)

    @property
    def ok(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300

    def header(self, name: str, now: float) -> float | None:
        """Seconds to wait, by a header."""
        value = self.headers.get(name, "")
        return retry_after(value, now) if name == "retry-after" else bounded_seconds(value)


Waits = Callable[[ServiceResponse, float], float | None]
"""Seconds until the next request with this rate key is allowed; None if the service did not say."""


def bounded_seconds(value: JSON) -> float | None:
    """Seconds from a number or its text, up to the longest accepted wait."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, MAX_RETRY_AFTER_S) if number >= 0 else None


def retry_after_header(response: ServiceResponse, now: float) -> float | None:
    """Seconds by the header Retry-After of a 429 or 503."""
    return response.header("retry-after", now) if response.status in (429, 503) else None


def error_for(response: ServiceResponse, why: str) -> Exception:
    """Error for a response that is not a success.

    Args:
        response: of the service.
        why: for a permanent error: the reason and what to do.
    """
    text = f"{response.host}: HTTP {response.status}"
    if 400 <= response.status < 500 and response.status not in _RETRIED_STATUSES:
        return GiveUp(f"{text}: {why}")
    return Retry(text)


async def check_webhooks(urls: Sequence[str], allow: Sequence[str]) -> str:
    """Connect to the hosts of webhooks. A webhook itself can be tested by a message only.

    Raises:
        Refused: one of them is a private target.
        httpx.HTTPError: a host does not respond.
    """
    found = {await check_reachable(url, allow): None for url in urls}
    return "; ".join((*found, "a webhook itself can be tested by a message only"))


class ChatClient:
    """HTTP client of one chat handler, with one queue for each rate key.

    Args:
        allow: private targets that may be called.
        waits: reads how long the service asks to wait.
        clock: Unix seconds.
        sleep: sleeps for seconds.
    """

    def __init__(
        self,
        allow: Sequence[str],
        waits: Waits = retry_after_header,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._waits = waits
        self._clock = clock
        self._sleep = sleep
        self._client = LazyClient(allow, max_body=_MAX_RESPONSE_BYTES)
        self._gates: dict[str, _RateGate] = {}

    async def send(
        self,
        method: str,
        url: str,
        deadline: float,
        *,
        rate_key: str,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ServiceResponse:
        """Send a request, and repeat it if the service asks to wait and there is time.

        Args:
            method: of HTTP.
            url: the URL.
            deadline: Unix seconds.
            rate_key: key by which the service counts requests.
            body: JSON.
            form: form fields, instead of JSON.
            headers: in addition to the body's.

        Raises:
            Retry: no response, or the service asks to wait longer than there is time.
            GiveUp: the URL is not allowed.
        """
        content: bytes | None = None
        sent_headers = dict(headers or {})
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            sent_headers["content-type"] = "application/json; charset=utf-8"
        gate = self._gates.setdefault(rate_key, _RateGate())
        while True:
            async with self._turn(httpx.URL(url).host, gate, deadline):
                response = await self._exchange(
                    gate, method, url, deadline, content=content, data=form, headers=sent_headers
                )
            wait = self._waits(response, self._clock())
            if response.status not in (429, 503) or wait is None:
                return response
            if wait > self._max_wait(deadline):
                raise _later(response.host, wait)

    async def stream(
        self,
        method: str,
        url: str,
        deadline: float,
        *,
        rate_key: str | None,
        content: AsyncIterable[bytes],
        headers: Mapping[str, str],
    ) -> ServiceResponse:
        """Send a body that can be read once only. Other requests do not wait for its end.

        Args:
            method: of HTTP.
            url: the URL.
            deadline: Unix seconds.
            rate_key: key by which the service counts requests; None if it does not count this one.
            content: the body.
            headers: with the body's length.

        Raises:
            Retry: no response, or the service asks to wait.
            GiveUp: the URL is not allowed.
        """
        host = httpx.URL(url).host
        gate = (
            self._gates.setdefault(rate_key, _RateGate()) if rate_key is not None else _RateGate()
        )
        async with self._turn(host, gate, deadline):
            pass
        response = await self._exchange(
            gate, method, url, deadline, content=content, headers=headers
        )
        wait = self._waits(response, self._clock())
        if response.status in (429, 503) and wait is not None:
            raise _later(host, wait)
        return response

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        # The locks may belong to an event loop that has ended.
        self._gates.clear()
        await self._client.close()

    async def _exchange(
        self, gate: _RateGate, method: str, url: str, deadline: float, **request: Any
    ) -> ServiceResponse:
        host = httpx.URL(url).host
        timeout = max(deadline - self._clock(), 0.001)
        try:
            response = await self._client.open().request(method, url, timeout=timeout, **request)
        except Refused as error:
            raise GiveUp(str(error)) from None
        except httpx.HTTPError as error:
            # The exception's own text might contain the URL.
            raise Retry(f"{host}: {type(error).__name__}") from None
        result = _parse_response(host, response)
        now = self._clock()
        gate.hold(now, self._waits(result, now) or 0.0)
        return result

    def _max_wait(self, deadline: float) -> float:
        return min(_MAX_WAIT_S, deadline - self._clock() - _MIN_REQUEST_S)

    @asynccontextmanager
    async def _turn(self, host: str, gate: _RateGate, deadline: float) -> AsyncIterator[None]:
        """Wait for earlier requests, and until the service allows the next one."""
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0.001)):
                await gate.lock.acquire()
        except TimeoutError:
            raise Retry(f"{host}: busy with earlier messages", after=1.0, pause=True) from None
        try:
            wait = gate.wait(self._clock())
            if wait > 0:
                if wait > self._max_wait(deadline):
                    raise _later(host, wait)
                await self._sleep(wait)
            yield
        finally:
            gate.lock.release()


@dataclass(slots=True)
class _RateGate:
    """Queue of the requests with one rate key.

    Attributes:
        lock: one request at a time.
        free_at: Unix seconds at which the next request is allowed.
        asked: seconds to wait that the service asked for.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0
    asked: float = 0.0

    def hold(self, now: float, seconds: float) -> None:
        """Delay the next request; a longer delay stays."""
        if now + seconds > self.free_at:
            self.free_at, self.asked = now + seconds, seconds

    def wait(self, now: float) -> float:
        """Seconds until the next request; a clock that steps back does not make them longer."""
        return min(self.free_at - now, self.asked)


def _later(host: str, wait: float) -> Retry:
    return Retry(f"{host}: asks to wait {wait:.0f} s", after=wait, pause=True)


def _parse_response(host: str, response: httpx.Response) -> ServiceResponse:
    try:
        body = parse(response.content)
    except Unreadable:
        body = None
    return ServiceResponse(
        host,
        response.status_code,
        response.headers,
        response.content[:500].decode(errors="replace"),
        body if isinstance(body, dict) else {},
    )
