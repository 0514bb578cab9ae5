"""Requests to a chat service, at the pace that it asks for.

A service counts the messages to one place. Requests to one place go out one after the other, and
where the service says that the next has to wait, the next waits: in the run, as long as its time
allows, so that a burst uses up no attempts (F26); and else by a pause of the whole handler (F27).
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
from receiver.outbound.client import check_reachable, client
from receiver.strict_json import Unreadable, parse
from submitter.api.retry_after import MAX_RETRY_AFTER_S, retry_after
from submitter.prediction import JSON

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

_AGAIN = frozenset({408, 409, 425, 429})
_MAX_ANSWER = 4 * 1024 * 1024
_PASSING = 0.5
"""Seconds that a request takes at least; a run whose time ends sooner begins none."""

_PATIENCE = 60.0
"""Seconds that a run waits for its service at most; beyond, the handler is paused."""


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """What a service said.

    Attributes:
        host: of the service.
        status: the HTTP status.
        headers: case does not matter in their names.
        text: the body's start, where it is text.
        body: the body, where it is a JSON object; else empty.
    """

    host: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    text: str = field(repr=False)
    body: Mapping[str, JSON] = field(repr=False)

    @property
    def ok(self) -> bool:
        """The HTTP status is one of success."""
        return 200 <= self.status < 300

    def header(self, name: str, now: float) -> float | None:
        """Seconds that a header says to wait."""
        value = self.headers.get(name, "")
        return retry_after(value, now) if name == "retry-after" else bounded_seconds(value)


Waits = Callable[[ServiceResponse, float], float | None]
"""Seconds until the service takes another request for this place; None where it did not say."""


def bounded_seconds(value: JSON) -> float | None:
    """Seconds, from a number or its text; bounded."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, MAX_RETRY_AFTER_S) if number >= 0 else None


def retry_after_header(answer: ServiceResponse, now: float) -> float | None:
    """As the header Retry-After says."""
    return answer.header("retry-after", now) if answer.status in (429, 503) else None


def error_for(answer: ServiceResponse, why: str) -> Exception:
    """The error for an answer that is no success.

    Args:
        answer: of the service.
        why: for an answer that will be the same next time: what is wrong and what to do.
    """
    text = f"{answer.host}: HTTP {answer.status}"
    if 400 <= answer.status < 500 and answer.status not in _AGAIN:
        return GiveUp(f"{text}: {why}")
    return Retry(text)


async def check_webhooks(urls: Sequence[str], allow: Sequence[str]) -> str:
    """Connect to where webhooks are; whether they take messages cannot be asked.

    Raises:
        Refused: one of them leads inside.
        httpx.HTTPError: nothing answers.
    """
    found = {await check_reachable(url, allow): None for url in urls}
    return "; ".join((*found, "whether messages are taken, only a message shows"))


class ChatClient:
    """Sends requests, over connections that are kept.

    Args:
        allow: private targets that may be called.
        waits: how this service says that the next request has to wait.
        clock: Unix seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        allow: Sequence[str],
        waits: Waits = retry_after_header,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._allow = allow
        self._waits = waits
        self._clock = clock
        self._sleep = sleep
        self._client: httpx.AsyncClient | None = None
        self._places: dict[str, _RateGate] = {}

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
        """Send a request, again where the service asks to wait and there is time for that.

        Args:
            method: of HTTP.
            url: where to.
            deadline: Unix seconds.
            rate_key: what the service counts by.
            body: JSON.
            form: fields of a form, instead.
            headers: besides those of the body.

        Raises:
            Retry: no answer, or one that asks to wait for longer than there is time.
            GiveUp: the URL must not be called.
        """
        content: bytes | None = None
        told = dict(headers or {})
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            told["content-type"] = "application/json; charset=utf-8"
        turn = self._places.setdefault(rate_key, _RateGate())
        while True:
            async with self._turn(httpx.URL(url).host, turn, deadline):
                answer = await self._exchange(
                    turn, method, url, deadline, content=content, data=form, headers=told
                )
            wait = self._waits(answer, self._clock())
            if answer.status not in (429, 503) or wait is None:
                return answer
            if wait > self._patience(deadline):
                raise _later(answer.host, wait)

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
        """Send a body that cannot be sent twice; others to the same place need not wait for it.

        Args:
            method: of HTTP.
            url: where to.
            deadline: Unix seconds.
            rate_key: what the service counts by; None where it does not count this.
            content: the body.
            headers: with its length.

        Raises:
            Retry: no answer, or one that asks to wait.
            GiveUp: the URL must not be called.
        """
        host = httpx.URL(url).host
        turn = (
            self._places.setdefault(rate_key, _RateGate()) if rate_key is not None else _RateGate()
        )
        async with self._turn(host, turn, deadline):
            pass
        answer = await self._exchange(turn, method, url, deadline, content=content, headers=headers)
        wait = self._waits(answer, self._clock())
        if answer.status in (429, 503) and wait is not None:
            raise _later(host, wait)
        return answer

    async def close(self) -> None:
        """Let the connections go; the next request makes new ones."""
        # Their locks may belong to a loop that has ended (F41).
        self._places.clear()
        if self._client is not None:
            closing, self._client = self._client, None
            await closing.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = client(self._allow, max_body=_MAX_ANSWER)
        return self._client

    async def _exchange(
        self, turn: _RateGate, method: str, url: str, deadline: float, **request: Any
    ) -> ServiceResponse:
        host = httpx.URL(url).host
        timeout = max(deadline - self._clock(), 0.001)
        try:
            response = await self._open().request(method, url, timeout=timeout, **request)
        except Refused as error:
            raise GiveUp(str(error)) from None
        except httpx.HTTPError as error:
            # Its own text might show the URL.
            raise Retry(f"{host}: {type(error).__name__}") from None
        answer = _read(host, response)
        now = self._clock()
        turn.hold(now, self._waits(answer, now) or 0.0)
        return answer

    def _patience(self, deadline: float) -> float:
        return min(_PATIENCE, deadline - self._clock() - _PASSING)

    @asynccontextmanager
    async def _turn(self, host: str, turn: _RateGate, deadline: float) -> AsyncIterator[None]:
        """Wait until it is our turn, and until the service takes the next."""
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0.001)):
                await turn.lock.acquire()
        except TimeoutError:
            raise Retry(f"{host}: busy with earlier messages", after=1.0, pause=True) from None
        try:
            wait = turn.wait(self._clock())
            if wait > 0:
                if wait > self._patience(deadline):
                    raise _later(host, wait)
                await self._sleep(wait)
            yield
        finally:
            turn.lock.release()


@dataclass(slots=True)
class _RateGate:
    """What the service counts by.

    Attributes:
        lock: one request at a time.
        free_at: Unix seconds when it takes the next.
        asked: seconds that it asked for then.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0
    asked: float = 0.0

    def hold(self, now: float, seconds: float) -> None:
        """Take nothing for so long; a wait is not made shorter."""
        if now + seconds > self.free_at:
            self.free_at, self.asked = now + seconds, seconds

    def wait(self, now: float) -> float:
        """Seconds until it takes the next; a clock that steps back makes it no longer (F6)."""
        return min(self.free_at - now, self.asked)


def _later(host: str, wait: float) -> Retry:
    return Retry(f"{host}: asks to wait {wait:.0f} s", after=wait, pause=True)


def _read(host: str, response: httpx.Response) -> ServiceResponse:
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
