"""HTTP transport of the API: one attempt (`send`) or retries (`ask`), with redacted URLs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

import httpx
import stamina

from submitter.api.requests import ApiRequest
from submitter.api.responses import ApiResponse
from submitter.errors import RateLimited, Unavailable


class RedactedURL(httpx.URL):
    """A URL whose text ends after the host: its path or query holds a token.

    httpx logs the URL of each request, and errors quote it; what is sent stays whole. Nobody
    else's lines change, as they would by a filter on httpx's logger.
    """

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')[:260]}"

    def __repr__(self) -> str:
        return f"QuietURL({str(self)!r})"

    def join(self, url: httpx.URL | str) -> httpx.URL:
        """As of any URL: upstream's goes by the text."""
        return httpx.URL(self).join(url)


async def redact_url(request: httpx.Request) -> None:
    """Make a request's URL quiet; a hook of httpx, which also sees each hop of a redirect."""
    request.url = RedactedURL(request.url)


REQUEST_TIMEOUT_S = 60.0
"""Seconds for one question and its answer."""

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Bytes of an answer that are read at most; the list of all models is the longest."""

# An idle connection is kept for less than servers do: one that was closed meanwhile loses the
# request that is sent on it, and nobody can tell whether it was received.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)

_CONNECT_TIMEOUT_S = 10.0

# Before a connection stands, and before one is free, nothing of the request can have been sent.
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_MAX_RETRY_AFTER_S = 60.0

_CHUNK_BYTES = 64 * 1024
_MIN_UPLOAD_BYTES_PER_S = 64 * 1024
"""Bytes a second of the slowest line on which an upload may take as long as it takes."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ResponseReader(Protocol[T_co]):
    """Reads an answer, or raises."""

    def __call__(self, answer: ApiResponse, *, now: float) -> T_co:
        """See `submitter.api.responses`."""
        ...


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No usable answer came.

    Attributes:
        reason: a few words.
        sent: whether the request may have been received; False is certain.
    """

    reason: str
    sent: bool


@functools.cache
def tls_context() -> ssl.SSLContext:
    """How this process checks certificates; reading them all takes a tenth of a second."""
    return httpx.create_ssl_context()


class ApiTransport:
    """The pool of connections; used as a context.

    Args:
        transport: how requests travel; None for httpx's own.
        clock: gives Unix seconds.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None, clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._again = stamina.AsyncRetryingCaller(
            attempts=5, timeout=90.0, wait_initial=0.5, wait_max=10.0, wait_jitter=1.0
        ).on(_wait)

    async def __aenter__(self) -> Self:
        # Redirects are not followed: they would send a submission twice, or the key elsewhere.
        self._http = httpx.AsyncClient(
            transport=self._transport,
            verify=tls_context(),
            limits=_LIMITS,
            follow_redirects=False,
            # The query of a submission holds the sealed context.
            event_hooks={"request": [redact_url]},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def ask(self, request: ApiRequest, read: ResponseReader[T]) -> T:
        """Send what creates nothing, and again where it is worth it.

        Network errors, 429 and 5xx are tried again with growing, jittered waits, or when the API
        said so.

        Raises:
            ApiError: the API refused.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._again(self._ask_once, request, read)

    async def _ask_once(self, request: ApiRequest, read: ResponseReader[T]) -> T:
        answer = await self.send(
            request,
            timeout=REQUEST_TIMEOUT_S,
            longer=len(request.content or b"") / _MIN_UPLOAD_BYTES_PER_S,
        )
        if isinstance(answer, NoAnswer):
            raise Unavailable(answer.reason)
        return read(answer, now=self._clock())

    async def send(
        self, request: ApiRequest, *, timeout: float, longer: float = 0.0
    ) -> ApiResponse | NoAnswer:
        """Send a request exactly once, whatever happens.

        Args:
            request: what to send.
            timeout: seconds for all of it, the answer's body included.
            longer: seconds more, for a long content that goes out without a halt.
        """
        if self._http is None:
            raise RuntimeError("use the client as `async with WaveSpeed() as wave:`")
        try:
            made = _made(request, timeout)
        except (httpx.InvalidURL, UnicodeError):
            return NoAnswer("its address cannot be used", sent=False)
        try:
            async with asyncio.timeout(timeout + longer):
                return await _exchange(self._http, made)
        except _NOTHING_SENT as error:
            return NoAnswer(type(error).__name__, sent=False)
        except TimeoutError:
            return NoAnswer(f"no answer in {timeout + longer:g} s", sent=True)
        # OSError: what httpx passes on of TLS; the others: an address that an answer points to.
        except (httpx.HTTPError, OSError, httpx.InvalidURL, UnicodeError) as error:
            return NoAnswer(type(error).__name__, sent=True)


def _made(request: ApiRequest, timeout: float) -> httpx.Request:
    """Not made by the client, which would add headers and cookies of its own."""
    headers, content = list(request.headers), None
    if request.content is not None:
        headers.append(("content-length", str(len(request.content))))
        content = _chunks(request.content)
    # Whoever waits for a place or a connection has sent nothing, and learns of it in time.
    quarter = timeout / 4
    limits = httpx.Timeout(timeout, connect=min(_CONNECT_TIMEOUT_S, quarter), pool=quarter)
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        content=content,
        extensions={"timeout": limits.as_dict()},
    )


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    """In pieces, so that the limit of a write is for one of them."""
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]


async def _exchange(http: httpx.AsyncClient, request: httpx.Request) -> ApiResponse | NoAnswer:
    response = await http.send(request, stream=True)
    async with contextlib.aclosing(response):
        headers = {name.lower(): value for name, value in response.headers.items()}
        packed = headers.get("content-encoding", "").lower()
        if packed not in ("", "identity", "gzip"):
            return NoAnswer("its answer is compressed in a way nobody asked for", sent=True)
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_RESPONSE_BYTES:
                return NoAnswer(f"its answer is longer than {MAX_RESPONSE_BYTES} bytes", sent=True)
        return ApiResponse(response.status_code, headers, bytes(body))


def _wait(error: Exception) -> bool | float:
    """Whether to ask again, or after how many seconds where the API said so."""
    if not isinstance(error, RateLimited | Unavailable):
        return False
    if error.retry_after is None:
        return True
    if error.retry_after > _MAX_RETRY_AFTER_S:
        return False
    # Many clients are told the same second; they need not all come back in it.
    return error.retry_after + random.uniform(0.0, 1.0)  # noqa: S311 - no secret
