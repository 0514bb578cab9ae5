"""HTTP client with an SSRF guard: it does not connect to private addresses.

The host name is resolved once, all its addresses are checked, and the connection goes to a checked
address; DNS rebinding changes nothing. The check is part of connecting, so every hop of a redirect
is checked too. TLS still verifies the certificate against the host name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, cast

import httpcore
import httpx

from receiver.errors import Refused
from receiver.outbound.addresses import Address, AllowList, private_reason
from submitter.api.transport import redact_url, tls_context

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name, for a port; raises OSError if it has none."""

MAX_BODY_BYTES = 1024 * 1024
"""Default limit of a response's body."""

READ_SIZE_BYTES = 256 * 1024
"""Bytes of one read from a connection."""

# aws-chunked: S3 repeats how the file was uploaded; the response itself is plain.
_PLAIN_ENCODINGS = (b"", b"identity", b"aws-chunked")


def check_url(url: httpx.URL) -> None:
    """Refuse a URL that must not be called, whatever its host is.

    Raises:
        Refused: it is neither http nor https, has no host, or contains credentials.
    """
    if url.scheme not in ("http", "https"):
        raise Refused(f"{_shown(url.host)}: only http and https URLs are called")
    if not url.host:
        raise Refused("the URL has no host")
    if url.userinfo:
        raise Refused(
            f"{_shown(url.host)}: a URL with a user or password is not called; remove them"
        )


def client(
    allow: Sequence[str] = (),
    *,
    timeout: float | None = 30.0,
    redirects: int = 0,
    max_body: int = MAX_BODY_BYTES,
    tls: ssl.SSLContext | None = None,
    resolve: Resolver | None = None,
) -> httpx.AsyncClient:
    """Make an HTTP client that checks the addresses of every request.

    Proxies from the environment are not used: their connections could not be checked.

    Args:
        allow: private targets that may be called: `host`, `host:port`, an address or a network.
        timeout: seconds for a request and its whole response; a request may set its own.
        redirects: the most redirects to follow.
        max_body: bytes of a response's body; a longer one raises `Refused`.
        tls: an SSL context in place of the default one.
        resolve: resolves host names; by default the system's resolver.

    Raises:
        ValueError: an entry of `allow` is malformed.
    """
    guard = _GuardedBackend(AllowList.parse(allow), resolve or _lookup)
    return httpx.AsyncClient(
        transport=_GuardedTransport(guard, tls or tls_context(), max_body),
        timeout=timeout,
        follow_redirects=redirects > 0,
        max_redirects=redirects,
        trust_env=False,
        event_hooks={"request": [redact_url]},
        # A small compressed response can expand to a huge one.
        headers={"accept-encoding": "identity", "user-agent": "wavehook"},
    )


class LazyClient:
    """A `client` that is made at its first use, and again after it was closed, on any event loop.

    Args:
        allow: as for `client`.
        redirects: as for `client`.
        max_body: as for `client`.
    """

    def __init__(
        self, allow: Sequence[str], *, redirects: int = 0, max_body: int = MAX_BODY_BYTES
    ) -> None:
        self._allow = allow
        self._redirects = redirects
        self._max_body = max_body
        self._client: httpx.AsyncClient | None = None

    def open(self) -> httpx.AsyncClient:
        """The client; no connection is made yet."""
        if self._client is None:
            self._client = client(self._allow, redirects=self._redirects, max_body=self._max_body)
        return self._client

    async def close(self) -> None:
        """Close the connections; the next `open` makes new ones."""
        if self._client is not None:
            closing, self._client = self._client, None
            await closing.aclose()


def web_url(text: str) -> str:
    """An http or https URL, as a setting.

    Raises:
        ValueError: it is not valid; the text says what was expected, without the URL.
    """
    try:
        check_url(httpx.URL(text))
    except (httpx.InvalidURL, Refused):
        raise ValueError("an http or https URL without a user or password in it") from None
    return text


async def check_reachable(
    url: str,
    allow: Sequence[str] = (),
    *,
    timeout: float = 10.0,
    tls: ssl.SSLContext | None = None,
    resolve: Resolver | None = None,
) -> str:
    """Connect to a URL's host as `client` would, and send no request.

    Args:
        url: http or https; only its host is sent, in the TLS handshake.
        allow: private targets that may be called, as for `client`.
        timeout: seconds.
        tls: an SSL context in place of the default one.
        resolve: resolves host names; by default the system's resolver.

    Returns:
        One sentence, for a handler's `check`.

    Raises:
        Refused: the host has a private address, or the URL must not be called.
        httpx.HTTPError: the host does not accept the connection, or its certificate is invalid.
    """
    target = httpx.URL(url)
    check_url(target)
    encrypted = target.scheme == "https"
    port = target.port or (443 if encrypted else 80)
    guard = _GuardedBackend(AllowList.parse(allow), resolve or _lookup)
    async with _exchange(asyncio.get_running_loop().time() + timeout):
        stream = await guard.connect_tcp(target.host, port, timeout)
        try:
            if encrypted:
                context = tls or tls_context()
                stream = await stream.start_tls(context, target.host, timeout)
        finally:
            await stream.aclose()
    secured = " with TLS" if encrypted else ""
    return f"{_shown(target.host)}: port {port} takes connections{secured}"


async def _lookup(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _shown(host: str) -> str:
    return host[:253]


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Network backend that resolves, checks, and connects to a checked address."""

    def __init__(self, allowed: AllowList, resolve: Resolver) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._checked(host, port)
        # An address that drops packets must leave time for the next one.
        share = timeout / len(addresses) if timeout is not None and addresses else timeout
        failed: Exception = httpcore.ConnectError(f"{_shown(host)}: the host name has no address")
        for address in addresses:
            try:
                return _WideReadStream(
                    await self._network.connect_tcp(
                        str(address), port, share, local_address, socket_options
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = type(error)(f"{_shown(host)}: no connection to port {port}")
        raise failed

    async def _checked(self, host: str, port: int) -> list[Address]:
        try:
            addresses = [ip_address(text) for text in await self._resolve(host, port)]
        # UnicodeError: the name is not valid in DNS.
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"{_shown(host)}: the host name does not resolve") from None
        if not self._allowed.name(host, port):
            for address in addresses:
                reason = private_reason(address)
                if reason is not None and not self._allowed.address(address, port):
                    raise Refused(
                        f"{_shown(host)}: {address} is {reason}; "
                        "to permit it, add the host or its network to `allow`"
                    )
        return addresses


class _WideReadStream(httpcore.AsyncNetworkStream):
    """Stream with larger reads, so that a large body costs the event loop fewer turns."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max(max_bytes, READ_SIZE_BYTES), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _WideReadStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _GuardedTransport(httpx.AsyncBaseTransport):
    """Transport over a connection pool with a guarded backend.

    httpx's own transport takes no network backend. Replacing the pool in its private field would
    leave requests unguarded on the day that httpx renames the field.
    """

    def __init__(self, guard: _GuardedBackend, tls: ssl.SSLContext, max_body: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=guard,
        )
        self._max_body = max_body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        check_url(request.url)
        limit = request.extensions.get("timeout", {}).get("read")
        deadline = None if limit is None else asyncio.get_running_loop().time() + limit
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        async with _exchange(deadline):
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=cast("AsyncIterable[bytes]", request.stream),
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_BoundedBody(response, _shown(request.url.host), deadline, self._max_body),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _BoundedBody(httpx.AsyncByteStream):
    """A response's body, bounded in bytes and time."""

    def __init__(
        self, response: httpcore.Response, host: str, deadline: float | None, limit: int
    ) -> None:
        self._response = response
        self._host = host
        self._deadline = deadline
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        encodings = [v for name, v in self._response.headers if name.lower() == b"content-encoding"]
        if any(each.strip().lower() not in _PLAIN_ENCODINGS for each in encodings):
            raise httpx.DecodingError(
                f"{self._host}: the response is compressed, although none was requested"
            )
        size = 0
        parts = aiter(self._response.aiter_stream())
        while True:
            async with _exchange(self._deadline):
                part = await anext(parts, None)
            if part is None:
                return
            size += len(part)
            if size > self._limit:
                raise Refused(f"{self._host}: the response is longer than {self._limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


@asynccontextmanager
async def _exchange(deadline: float | None) -> AsyncIterator[None]:
    """Apply a deadline of the loop's clock, and translate httpcore's errors to httpx's."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise httpx.ReadTimeout("no complete response in time") from None
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
    ) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from None
