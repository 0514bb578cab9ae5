"""`rabbitmq`: publishes the event, and waits until every queue that it is routed to has it.

    [handlers.events]
    use = "rabbitmq"
    url = "amqp://user:password@rabbit.example:5672/vhost"      # amqps:// for TLS
    exchange = "wavehook"
    routing_key = "{type}"                  # see `topic`
    queue = "videos"                        # without an exchange: goes straight to this queue
    declare = true                          # make what is not there

The message is persistent and mandatory, its body a CloudEvent; see `cloudevent`.
`message_id` is the dispatch's key, for consumers that want to know an event again: RabbitMQ itself
does not. With `declare`, the exchange is a durable topic, and the queue a durable quorum queue
that gets all of it.

Done means that RabbitMQ has confirmed it, for a durable queue: that it is on disk. One that no
queue wants is not done, and is tried again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import PREFIX, Envelopes, Message, Shape
from receiver.handlers.brokers.connection import (
    CONNECT,
    HEARTBEAT,
    Certificates,
    Link,
    end,
    reason,
    within,
)
from receiver.handlers.brokers.connection import context as tls_context
from receiver.handlers.brokers.topic import EXAMPLE, Form, Topic
from receiver.handlers.envelope import happened_at, instant, plain, visible
from receiver.handlers.settings import read

if TYPE_CHECKING:
    import ssl

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

_FORM = Form(
    divider=".",
    legal=re.compile(r"[!-~]+"),
    limit=255,
    words="a routing key such as {type}, without spaces",
)
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{0,255}$")]


def place(url: str) -> str:
    """Where a URL leads, without who we are there.

    Raises:
        ValueError: it cannot be one.
    """
    expected = "amqp://user:password@host:5672/vhost or amqps://…"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("amqp", "amqps") or not host:
        raise ValueError(expected)
    return f"RabbitMQ at {host}:{port}"


def _url(url: str) -> str:
    place(url)
    return url


class Settings(Shape, Certificates):
    """The handler's own settings."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        repr=False, description="where RabbitMQ is, such as amqp://user:password@127.0.0.1:5672/"
    )
    exchange: _Name = ""
    routing_key: Annotated[str, AfterValidator(_FORM.check)] | None = None
    queue: _Name = ""
    declare: bool = False

    @model_validator(mode="after")
    def _routed(self) -> Settings:
        if not (self.exchange or self.queue or self.routing_key):
            raise ValueError("an `exchange` or a `queue`")
        if self.queue and self.routing_key and not self.exchange:
            raise ValueError("an `exchange` beside `routing_key`, or the `queue` alone")
        return self

    @property
    def template(self) -> str:
        """The template of routing keys; without an exchange it is the queue's name."""
        return self.routing_key or ("{type}" if self.exchange else self.queue)


@dataclass(frozen=True, slots=True, eq=False)
class Publisher:
    """A connection, its channel with confirms, and where to publish on it."""

    connection: AbstractConnection
    channel: AbstractChannel
    exchange: AbstractExchange


class RabbitMQ:
    """Publishes events with confirms."""

    def __init__(
        self,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._where = place(settings.url)
        self._key = Topic(settings.template, _FORM)
        self._envelopes = Envelopes(settings)
        self._link = Link(self._where, self._connect, _disconnect)

    async def __call__(self, event: Event, context: Context) -> None:
        """Publish the event; see the module's docstring for what done means."""
        key = self._key.fill(event)
        message = self._envelopes.message(event)
        sending = self._publish(key, message, event, plain(context.key))
        await within(context.deadline - self._clock(), self._where, sending)

    async def check(self) -> str:
        """Look whether exchange and queue are there; publishes nothing, and makes none."""
        given, key = self._settings, self._key.fill(EXAMPLE)
        connection = await self._dial()
        try:
            found = [
                await self._look(connection, kind, name)
                for kind, name in (("exchange", given.exchange), ("queue", given.queue))
                if name
            ]
        finally:
            await end(connection.close())
        return f"{self._where}: {' and '.join(found) or f'it lets us in; routing key {key}'}"

    async def close(self) -> None:
        """Let the connection go; the next event makes a new one."""
        await self._link.close()

    async def _look(self, connection: AbstractConnection, kind: str, name: str) -> str:
        from aio_pika.exceptions import ChannelNotFoundEntity

        try:
            # A channel of its own: what is not there ends it.
            channel = await connection.channel()
            if kind == "exchange":
                await channel.get_exchange(name)
                return f"the exchange {name}"
            queue = await channel.get_queue(name)
        except Exception as error:  # noqa: BLE001 - aiormq raises whatever closed the channel
            if isinstance(error, ChannelNotFoundEntity) and self._settings.declare:
                return f"the {kind} {name}, made at the first event"
            raise self._retry(error) from None
        return f"the queue {name}, with {queue.declaration_result.message_count} messages"

    async def _dial(self) -> AbstractConnection:
        import aio_pika

        try:
            # Not the one that reconnects: a broken one is replaced by the next event's.
            return await aio_pika.connect(
                self._settings.url,
                timeout=CONNECT,
                ssl_context=self._tls,
                heartbeat=HEARTBEAT,
                client_properties={"connection_name": "wavehook"},
            )
        except Exception as error:  # noqa: BLE001 - of many classes, none with a common base
            raise self._retry(error) from None

    async def _connect(self) -> Publisher:
        connection = await self._dial()
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await self._exchange(channel)
        except BaseException as error:
            await end(connection.close())
            if isinstance(error, Exception):
                raise self._retry(error) from None
            raise
        publisher = Publisher(connection, channel, exchange)
        # A refusal closes the channel only, and what is awaited on it with it.
        channel.close_callbacks.add(lambda *_: self._link.drop(publisher))
        return publisher

    async def _exchange(self, channel: AbstractChannel) -> AbstractExchange:
        given = self._settings
        exchange = channel.default_exchange
        if given.exchange and given.declare:
            exchange = await channel.declare_exchange(given.exchange, "topic", durable=True)
        elif given.exchange:
            exchange = await channel.get_exchange(given.exchange, ensure=False)
        if given.queue and given.declare:
            queue = await channel.declare_queue(
                given.queue, durable=True, arguments={"x-queue-type": "quorum"}
            )
            if given.exchange:
                await queue.bind(given.exchange, "#")
        return exchange

    async def _publish(self, key: str, message: Message, event: Event, id: str) -> None:
        import aio_pika

        publisher = await self._link.get()
        made = aio_pika.Message(
            message.body,
            headers={f"ce-{name}": value for name, value in message.attributes.items()},
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=id,
            timestamp=instant(happened_at(event)),
            type=PREFIX + visible(event.type, 200),
            app_id="wavehook",
        )
        try:
            await publisher.exchange.publish(made, key, mandatory=True)
        except Exception as error:  # noqa: BLE001 - aiormq raises whatever closed the channel
            if publisher.channel.is_closed:
                self._link.drop(publisher)
            raise self._retry(error, key) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # What was awaited on a connection that ended is cancelled with it.
            raise Retry(f"{self._where}: the connection broke") from None

    def _retry(self, error: Exception, key: str = "") -> Retry:
        from aio_pika import exceptions

        given = self._settings
        words = reason(error)
        if isinstance(error, exceptions.PublishError) and given.exchange:
            words = (
                f"the exchange {given.exchange} has no queue for {key}; bind one, or name it in "
                "`queue` and set `declare = true`"
            )
        elif isinstance(error, exceptions.PublishError):
            words = f"there is no queue {key}; make it, or set `declare = true`"
        elif isinstance(error, exceptions.DeliveryError):
            words = f"a queue refused it, routing key {key}; it may be full"
        elif isinstance(error, exceptions.ChannelNotFoundEntity):
            words = f"{error}; make it, or set `declare = true`"
        elif isinstance(error, exceptions.ChannelPreconditionFailed):
            words = f"{error}; it is there in another form: set `declare = false`"
        elif isinstance(error, exceptions.ProbableAuthenticationError):
            words = "it refuses the user or password in `url`"
        elif isinstance(error, exceptions.InvalidFrameError):
            words = "it ended the connection at its beginning; is the vhost of `url` there?"
        elif isinstance(error, exceptions.AMQPChannelError):
            words = str(error)
        elif isinstance(error, ConnectionError | exceptions.ChannelInvalidStateError):
            # A number and a sentence, the system's or the broker's.
            said = next((text for text in error.args[1:] if isinstance(text, str)), "")
            words = f"no connection, or it broke{f' ({said})' if said else ''}"
        return Retry(f"{self._where}: {words}")


def create(name: str, settings: Mapping[str, Any]) -> RabbitMQ:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import aio_pika  # noqa: F401 - so that it is missed at start

    chosen = read(Settings, name, settings)
    return RabbitMQ(chosen, tls_context(name, chosen))


async def _disconnect(publisher: Publisher) -> None:
    await publisher.connection.close()
