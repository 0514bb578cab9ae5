"""One connection for all runs of a handler: made when first needed, replaced when broken.

Runs at the same time share it, and what they send is in flight together. What breaks it fails
them with `Retry`; the dispatcher tries again, and the next run makes a new one.

TLS towards a broker: a certificate authority of your own, and a certificate for ourselves.

ca = "ca.pem"                           # trusted in place of the system's
cert = "client.pem"                     # where the broker asks who we are
key = "client.key"                      # unless it stands in `cert`
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from receiver.errors import Retry, SettingsError

Answer = TypeVar("Answer")
Connection = TypeVar("Connection")

CONNECT = 10.0
"""Seconds for a connection to be there."""

DISCONNECT = 2.0
"""Seconds for one to end as its protocol wants it."""

HEARTBEAT = 10
"""Seconds between two signs of life, so that one that died silently is found out."""


def reason(error: BaseException) -> str:
    """What went wrong, without a client library's own words, which may show an address (F16)."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return error.strerror
    return type(error).__name__


async def end(ending: Awaitable[None]) -> None:
    """Let a connection end; whatever a broken one says to it, and however long, it is over."""
    with suppress(Exception):
        async with asyncio.timeout(DISCONNECT):
            await ending


async def within(seconds: float, place: str, work: Awaitable[Answer]) -> Answer:
    """A run's time for its confirmation.

    Args:
        seconds: from now.
        place: which broker, for the error; no secret in it.
        work: gets the confirmation.

    Raises:
        Retry: the time is over.
    """
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await work
    except TimeoutError:
        raise Retry(f"{place}: no confirmation in time") from None


class Link(Generic[Connection]):
    """The connection.

    Args:
        place: which broker, for errors; no secret in it.
        connect: makes a connection; cleans up after itself where it cannot.
        disconnect: ends one, also a broken one.
    """

    def __init__(
        self,
        place: str,
        connect: Callable[[], Awaitable[Connection]],
        disconnect: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._place = place
        self._connect = connect
        self._disconnect = disconnect
        self._making: asyncio.Task[Connection] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def get(self) -> Connection:
        """The connection, once it is there.

        Raises:
            Retry: there is none; the text says why.
        """
        making = self._making
        if making is None:
            making = self._making = asyncio.create_task(self._make(), name="wavehook-connection")
            making.add_done_callback(self._made)
        elif making.done():
            return making.result()
        try:
            # Whoever runs out of time leaves it to the others.
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.cancelled():
                raise Retry(f"{self._place}: the connection was closed") from None
            raise

    def drop(self, connection: Connection) -> None:
        """Forget a connection that is broken, and end it; another one is left alone."""
        making = self._making
        if making is not None and _there(making) and making.result() is connection:
            self._making = None
            task = asyncio.ensure_future(self._end(connection))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End the connection; the next run makes a new one, on any event loop."""
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
            await asyncio.wait({making})
            if _there(making):
                await self._end(making.result())
        if self._ending:
            await asyncio.wait(self._ending)

    async def _make(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT):
                return await self._connect()
        except TimeoutError:
            raise Retry(f"{self._place}: no connection within {CONNECT:g} s") from None

    def _made(self, making: asyncio.Task[Connection]) -> None:
        """One that failed is not kept; whoever runs next tries again."""
        if not _there(making) and self._making is making:
            self._making = None

    async def _end(self, connection: Connection) -> None:
        await end(self._disconnect(connection))


def _there(making: asyncio.Task[Connection]) -> bool:
    return making.done() and not making.cancelled() and making.exception() is None


class Certificates(BaseModel):
    """The settings of all handlers that speak TLS by themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def context(name: str, certificates: Certificates) -> ssl.SSLContext | None:
    """What the settings ask for; None where they ask for nothing.

    Args:
        name: the handler's name, for the faults.
        certificates: its settings.

    Raises:
        SettingsError: a file is not what it should be.
    """
    given = certificates
    if given.key and not given.cert:
        fault = f"handlers.{name}.key: '{given.key}', expected `cert` beside it"
        raise SettingsError([fault])
    if not given.ca and not given.cert:
        return None
    made = ssl.create_default_context()
    faults = []
    try:
        if given.ca:
            made = ssl.create_default_context(cafile=given.ca)
    except (OSError, ValueError):
        faults.append(f"handlers.{name}.ca: '{given.ca}', expected a file of certificates in PEM")
    try:
        if given.cert:
            made.load_cert_chain(given.cert, given.key)
    except (OSError, ValueError):
        faults.append(
            f"handlers.{name}.cert: '{given.cert}', expected a file with a certificate in PEM, "
            "and its key, without a password, in it or in `key`"
        )
    if faults:
        raise SettingsError(faults)
    return made
