"""What the suite of the pipelines asks of a broker, and the brokers that it runs over."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

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
