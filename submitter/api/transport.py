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
    """URL whose text ends after the host, because its path or query holds a token.

    httpx logs the URL of each request and quotes it in errors. The request itself is sent to the
    whole URL. A filter on httpx's logger would change the log lines of other libraries too.
    """

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')[:260]}"

    def __repr__(self) -> str:
        return f"RedactedURL({str(self)!r})"

    def join(self, url: httpx.URL | str) -> httpx.URL:
        """Join by the whole URL; httpx joins by the text, which is cut here."""
        return httpx.URL(self).join(url)


async def redact_url(request: httpx.Request) -> None:
    """Redact a request's URL; an httpx event hook, called for each hop of a redirect too."""
    request.url = RedactedURL(request.url)


REQUEST_TIMEOUT_S = 60.0
"""Seconds for one request and its response."""

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Largest response that is read; the list of all models is the longest."""

# Idle connections are closed earlier than servers close them: a request that is sent on a
# connection just closed by the server is lost, and it is unknown whether it was received.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)

_CONNECT_TIMEOUT_S = 10.0

# Until a connection is open and free, no byte of the request has been sent.
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_MAX_RETRY_AFTER_S = 60.0

_CHUNK_BYTES = 64 * 1024
_MIN_UPLOAD_BYTES_PER_S = 64 * 1024
"""Upload speed that must be reached; a slower upload times out."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ResponseReader(Protocol[T_co]):
    """Parser of a response, as in `submitter.api.responses`."""

    def __call__(self, response: ApiResponse, *, now: float) -> T_co:
        """Parse it, or raise a SubmitterError."""
        ...


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request without a usable response.

    Attributes:
        reason: a few words.
        sent: True: the API may have received the request; False: it certainly did not.
    """

    reason: str
    sent: bool


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The TLS context of this process, cached: loading all certificates takes 0.1 s."""
    return httpx.create_ssl_context()


class ApiTransport:
    """HTTP connection pool with retries; an async context manager.

    Args:
        transport: of httpx; None: httpx's default.
        clock: Unix seconds.
        max_response_bytes: longer responses are not read.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
        max_response_bytes: int,
    ) -> None:
        self._max_response_bytes = max_response_bytes
        self._transport = transport
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._retry = stamina.AsyncRetryingCaller(
            attempts=5, timeout=90.0, wait_initial=0.5, wait_max=10.0, wait_jitter=1.0
        ).on(_wait)

    async def __aenter__(self) -> Self:
        # Following redirects could send a submit twice, or the API key to another host.
        self._http = httpx.AsyncClient(
            transport=self._transport,
            verify=tls_context(),
            limits=_LIMITS,
            follow_redirects=False,
            # The query of a submit holds the context token.
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
        """Send a request that creates nothing, with retries.

        Network errors, 429 and 5xx are retried after growing, jittered waits, or after the
        response's Retry-After.

        Raises:
            ApiError: the API refused.
            Unavailable: all tries failed.
        """
        return await self._retry(self._ask_once, request, read)

    async def _ask_once(self, request: ApiRequest, read: ResponseReader[T]) -> T:
        response = await self.send(
            request,
            timeout=REQUEST_TIMEOUT_S,
            extra_time=len(request.content or b"") / _MIN_UPLOAD_BYTES_PER_S,
        )
        if isinstance(response, NoAnswer):
            raise Unavailable(response.reason)
        return read(response, now=self._clock())

    async def send(
        self, request: ApiRequest, *, timeout: float, extra_time: float = 0.0
    ) -> ApiResponse | NoAnswer:
        """Send a request exactly once, without retries.

        Args:
            request: any request.
            timeout: seconds until the whole response is read.
            extra_time: more seconds, for a large upload that makes progress.
        """
        if self._http is None:
            raise RuntimeError("use the client as `async with WaveSpeed() as wave:`")
        try:
            built = _httpx_request(request, timeout)
        except (httpx.InvalidURL, UnicodeError):
            return NoAnswer("its URL is invalid", sent=False)
        try:
            async with asyncio.timeout(timeout + extra_time):
                return await _exchange(self._http, built, self._max_response_bytes)
        except _NOTHING_SENT as error:
            return NoAnswer(type(error).__name__, sent=False)
        except TimeoutError:
            return NoAnswer(f"no answer in {timeout + extra_time:g} s", sent=True)
        # OSError: TLS errors that httpx does not wrap. The others: a redirect to an invalid URL.
        except (httpx.HTTPError, OSError, httpx.InvalidURL, UnicodeError) as error:
            return NoAnswer(type(error).__name__, sent=True)


def _httpx_request(request: ApiRequest, timeout: float) -> httpx.Request:
    """Build the request without the httpx client, which would add its own headers and cookies."""
    headers, content = list(request.headers), None
    if request.content is not None:
        headers.append(("content-length", str(len(request.content))))
        content = _chunks(request.content)
    # A failure to connect, or to get a connection of the pool, is certain to have sent nothing; it
    # must show before the whole timeout is over.
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
    """Content in pieces, so that httpx's write timeout counts for each piece."""
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]


async def _exchange(
    http: httpx.AsyncClient, request: httpx.Request, max_bytes: int
) -> ApiResponse | NoAnswer:
    response = await http.send(request, stream=True)
    async with contextlib.aclosing(response):
        headers = {name.lower(): value for name, value in response.headers.items()}
        encoding = headers.get("content-encoding", "").lower()
        if encoding not in ("", "identity", "gzip"):
            return NoAnswer("its response has a Content-Encoding that was not requested", sent=True)
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > max_bytes:
                reason = f"its response is longer than {max_bytes} bytes"
                return NoAnswer(reason, sent=True)
        return ApiResponse(response.status_code, headers, bytes(body))


def _wait(error: Exception) -> bool | float:
    """Whether to retry, or the seconds until the retry if the API named them."""
    if not isinstance(error, RateLimited | Unavailable):
        return False
    if error.retry_after is None:
        return True
    if error.retry_after > _MAX_RETRY_AFTER_S:
        return False
    # Jitter: many clients may have received the same Retry-After.
    return error.retry_after + random.uniform(0.0, 1.0)  # noqa: S311 - no secret
