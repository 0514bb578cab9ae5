"""The connection of a broker handler: shared by all its runs, with its limits, URL and TLS.

The first run connects, and all others use the same connection at the same time. When it breaks,
the runs that use it fail with `Retry`, and the dispatcher's next attempt connects anew.

TLS settings of every broker that is addressed by a URL:

    ca = "ca.pem"           # certificate authority to trust instead of the system's
    cert = "client.pem"     # client certificate, if the broker asks for one
    key = "client.key"      # its private key, unless it is in `cert`
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from receiver.errors import Retry, SettingsError

Answer = TypeVar("Answer")
Connection = TypeVar("Connection")

CONNECT_TIMEOUT_S = 10.0
DISCONNECT_TIMEOUT_S = 2.0
HEARTBEAT_INTERVAL_S = 10
"""A connection that died silently is found by a missing heartbeat."""


class SharedConnection(Generic[Connection]):
    """One connection for all runs of a handler.

    Args:
        label: the broker's name for errors, such as `NATS at host:4222`, without a secret.
        connect: opens a connection; leaves nothing open when it fails.
        disconnect: closes one, also a broken one.
        connect_timeout: seconds.
    """

    def __init__(
        self,
        label: str,
        connect: Callable[[], Awaitable[Connection]],
        disconnect: Callable[[Connection], Awaitable[None]],
        connect_timeout: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._label = label
        self._connect = connect
        self._disconnect = disconnect
        self._connect_timeout = connect_timeout
        self._opening: asyncio.Task[Connection] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self) -> Connection:
        """The open connection; opens it if there is none.

        Raises:
            Retry: it cannot be opened; the text says why.
        """
        opening = self._opening
        if opening is None:
            opening = self._opening = asyncio.create_task(self._open(), name="wavehook-connection")
            opening.add_done_callback(self._opened)
        elif opening.done():
            return opening.result()
        try:
            # A run that is cancelled must not cancel the connection that others wait for.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise Retry(f"{self._label}: the connection was closed") from None
            raise

    async def use(self, deadline: float, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """Run `work` with the connection, and return its answer.

        Args:
            deadline: of the run, in Unix seconds.
            work: sends something over the connection and awaits the confirmation.

        Raises:
            Retry: there is no connection, or no confirmation before the deadline.
        """

        async def connected() -> Answer:
            return await work(await self.get())

        return await self.confirmed(deadline, connected())

    async def confirmed(self, deadline: float, confirmation: Awaitable[Answer]) -> Answer:
        """Await a confirmation until the run's deadline, in Unix seconds.

        Raises:
            Retry: the deadline has passed.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.time())):
                return await confirmation
        except TimeoutError:
            raise Retry(f"{self._label}: no confirmation in time") from None

    def drop(self, connection: Connection) -> None:
        """Close a broken connection, so that the next run opens another one.

        Does nothing for a connection that has been replaced already.
        """
        opening = self._opening
        if opening is not None and _succeeded(opening) and opening.result() is connection:
            self._opening = None
            task = asyncio.ensure_future(close_quietly(self._disconnect(connection)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close the connection; the next run opens another one, on any event loop."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.wait({opening})
            if _succeeded(opening):
                await close_quietly(self._disconnect(opening.result()))
        if self._closing:
            await asyncio.wait(self._closing)

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._connect()
        except TimeoutError:
            text = f"{self._label}: no connection within {self._connect_timeout:g} s"
            raise Retry(text) from None

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        """Forget an attempt that failed, so that the next run tries again."""
        if not _succeeded(opening) and self._opening is opening:
            self._opening = None


def _succeeded(opening: asyncio.Task[Connection]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


async def close_quietly(closing: Awaitable[None]) -> None:
    """Await the end of a connection for a limited time, and ignore the errors of a broken one."""
    with suppress(Exception):
        async with asyncio.timeout(DISCONNECT_TIMEOUT_S):
            await closing


@asynccontextmanager
async def closed_on_failure(close: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Close a half-open connection when the rest of its opening fails or is cancelled."""
    try:
        yield
    except BaseException:
        await close_quietly(close())
        raise


def safe_reason(error: BaseException) -> str:
    """The reason of a failure, without a client library's text: that may hold a password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return error.strerror
    return type(error).__name__


@dataclass(frozen=True, slots=True)
class UrlRules:
    """The URLs that a broker's handler accepts.

    Attributes:
        broker: the broker's name, such as `NATS`.
        ports: the default port of each scheme; 0 for a scheme whose path is a Unix socket.
        expected: what to write instead of a URL that is not accepted.
        path: the URL may have a path and a query.
    """

    broker: str
    ports: Mapping[str, int]
    expected: str
    path: bool = False

    def label(self, url: str) -> str:
        """The broker's name and address, such as `NATS at host:4222`, without user or password.

        Raises:
            ValueError: the URL is not accepted; the text says what was expected.
        """
        try:
            parts = urlsplit(url)
            host, default = parts.hostname, self.ports[parts.scheme]
            port = parts.port or default
        except (ValueError, KeyError):
            raise ValueError(self.expected) from None
        if not default and parts.path:
            return f"{self.broker} at {parts.path}"
        extra = parts.path.strip("/") or parts.query
        if not host or not default or (extra and not self.path):
            raise ValueError(self.expected)
        return f"{self.broker} at {host}:{port}"

    def check(self, url: str) -> str:
        """Return a URL that is accepted; for a settings model.

        Raises:
            ValueError: it is not; the text says what was expected.
        """
        self.label(url)
        return url


class TlsSettings(BaseModel):
    """TLS settings of a broker that is addressed by a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def tls_context(name: str, settings: TlsSettings) -> ssl.SSLContext | None:
    """The TLS context of a handler's settings; None if they set nothing.

    Args:
        name: the handler's name, for the faults.
        settings: its settings.

    Raises:
        SettingsError: a file cannot be used.
    """
    if settings.key and not settings.cert:
        fault = f"handlers.{name}.key: '{settings.key}', expected `cert` beside it"
        raise SettingsError([fault])
    if not settings.ca and not settings.cert:
        return None
    context = ssl.create_default_context()
    faults = []
    try:
        if settings.ca:
            context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ValueError):
        faults.append(
            f"handlers.{name}.ca: '{settings.ca}', expected a file of certificates in PEM"
        )
    try:
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
    except (OSError, ValueError):
        faults.append(
            f"handlers.{name}.cert: '{settings.cert}', expected a file with a certificate in PEM, "
            "and its key, without a password, in it or in `key`"
        )
    if faults:
        raise SettingsError(faults)
    return context
