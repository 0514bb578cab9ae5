"""What the suite of the pipelines asks of a broker, and the brokers that it runs over."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, cast

from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

PATIENCE = 20.0
"""Seconds; only a test that fails waits as long."""

SECRET = "s3cret"


class Broker(ABC):
    """A place on a real broker, or on what stands for one, for one test alone.

    It keeps no connection, so that a test may use several event loops.

    Attributes:
        use: the handler's entry point.
        knows: it knows a message again that is sent twice.
        modes: of the handler.
        name: of the stream, queue or topic.
    """

    use: ClassVar[str]
    knows: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ("structured", "binary")

    def __init__(self) -> None:
        self.name = f"wh-{uuid.uuid4().hex[:12]}"

    @abstractmethod
    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        """Of the handler: to the broker, or to another port of this machine, with a password."""

    @property
    @abstractmethod
    def port(self) -> int:
        """Of the broker."""

    @abstractmethod
    async def make(self) -> None:
        """Make the place."""

    @abstractmethod
    async def events(self) -> list[CloudEvent]:
        """All that a plain client has found there until now."""

    @abstractmethod
    async def remove(self) -> None:
        """Leave nothing behind."""

    async def read(self, count: int) -> list[CloudEvent]:
        """At least so many, waited for."""
        async with asyncio.timeout(PATIENCE):
            while len(found := await self.events()) < count:
                await asyncio.sleep(0.01)
        return found


def parsed(headers: Mapping[str, str], content_type: str, body: bytes) -> CloudEvent:
    """A CloudEvent in either mode, read by the package's own reader."""
    read = from_rabbitmq(RabbitMQMessage(dict(headers), content_type, body), JSONFormat())
    assert isinstance(read, CloudEvent)
    return read


def data(event: CloudEvent) -> dict[str, Any]:
    """What is in it."""
    found = event.get_data()
    assert isinstance(found, dict)
    return found


async def until(ready: Callable[[], Awaitable[object]], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await ready():
            await asyncio.sleep(0.01)


Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(meet: Meet, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server of this test's own, ended with all its connections; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            await meet(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def silent() -> AbstractAsyncContextManager[int]:
    """A server that lets everybody in and says nothing; gives its port."""

    async def meet(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    return serving(meet)
