"""`rabbitmq`: publishes the event to RabbitMQ, and waits until every queue it is routed to has it.

    [handlers.events]
    use = "rabbitmq"
    url = "amqp://user:password@rabbit.example:5672/vhost"  # amqps:// for TLS; required
    exchange = "wavehook"                   # where to publish; this or `queue` is required
    routing_key = "{type}"                  # a template, see `topic`; this is the default
    queue = "videos"                        # without an exchange: publish straight to this queue
    declare = false                         # true: create a missing exchange and queue, see below
    ca, cert, key                           # files for TLS, see `connection`
    mode, source                            # of the CloudEvent, see `cloudevent`

With `declare`, the exchange is a durable topic exchange, and the queue a durable quorum queue that
is bound to it for all routing keys. The message is persistent and mandatory.

Done: RabbitMQ has confirmed the event; for a durable queue, it is on disk. There is no result.

Retried: no queue is bound for the routing key, a queue refuses the event (for example because it
is full), the exchange or queue does not exist, the connection fails, or there is no confirmation
before the handler's `timeout`. No failure is final.

Duplicates: RabbitMQ does not detect them. A consumer can: `message_id` is the idempotency key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import (
    TYPE_PREFIX,
    BrokerMessage,
    CloudEventEncoder,
    CloudEventSettings,
)
from receiver.handlers.brokers.connection import (
    CONNECT_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    SharedConnection,
    TlsSettings,
    UrlRules,
    close_quietly,
    closed_on_failure,
    safe_reason,
    tls_context,
)
from receiver.handlers.brokers.topic import EXAMPLE_EVENT, TopicRules, TopicTemplate
from receiver.handlers.envelope import ascii_key, happened_at, visible_ascii
from receiver.handlers.settings import matching, read
from submitter.timestamps import utc_datetime

if TYPE_CHECKING:
    import ssl

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

URL_RULES = UrlRules(
    broker="RabbitMQ",
    ports={"amqp": 5672, "amqps": 5671},
    expected="amqp://user:password@host:5672/vhost or amqps://…",
    path=True,
)
TOPIC_RULES = TopicRules(
    separator=".",
    pattern=re.compile(r"[!-~]+"),
    max_chars=255,
    expected="a routing key such as {type}, without spaces",
)
_Name = Annotated[
    str,
    matching(r"[A-Za-z0-9_.:-]{0,255}", "a name of letters, digits, _ . : and -, at most 255"),
]


class RabbitSettings(CloudEventSettings, TlsSettings):
    """The settings of the handler."""

    url: Annotated[str, AfterValidator(URL_RULES.check)] = Field(
        repr=False, description="RabbitMQ's URL, such as amqp://user:password@127.0.0.1:5672/"
    )
    exchange: _Name = ""
    routing_key: Annotated[str, AfterValidator(TOPIC_RULES.check)] | None = None
    queue: _Name = ""
    declare: bool = False

    @model_validator(mode="after")
    def _has_destination(self) -> RabbitSettings:
        if not (self.exchange or self.queue or self.routing_key):
            raise ValueError("an `exchange` or a `queue`")
        if self.queue and self.routing_key and not self.exchange:
            raise ValueError("an `exchange` beside `routing_key`, or the `queue` alone")
        return self

    @property
    def key_template(self) -> str:
        """The template of routing keys; without an exchange, the queue's name."""
        return self.routing_key or ("{type}" if self.exchange else self.queue)


@dataclass(frozen=True, slots=True, eq=False)
class RabbitPublisher:
    """A connection, its channel with publisher confirms, and the exchange to publish to."""

    connection: AbstractConnection
    channel: AbstractChannel
    exchange: AbstractExchange

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()


class RabbitHandler:
    """Publishes events with publisher confirms."""

    def __init__(self, settings: RabbitSettings, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._label = URL_RULES.label(settings.url)
        self._key = TopicTemplate(settings.key_template, TOPIC_RULES)
        self._encoder = CloudEventEncoder(settings)
        self._connection = SharedConnection(self._label, self._connect, RabbitPublisher.close)

    async def __call__(self, event: Event, context: Context) -> None:
        key = self._key.fill(event)
        message = self._encoder.message(event)
        await self._connection.use(
            context.deadline,
            lambda publisher: self._publish(publisher, key, message, event, ascii_key(context.key)),
        )

    async def check(self) -> str:
        """Find the exchange and the queue; publishes nothing and declares nothing."""
        settings, key = self._settings, self._key.fill(EXAMPLE_EVENT)
        connection = await self._dial()
        try:
            found = [
                await self._find(connection, kind, name)
                for kind, name in (("exchange", settings.exchange), ("queue", settings.queue))
                if name
            ]
        finally:
            await close_quietly(connection.close())
        return f"{self._label}: {' and '.join(found) or f'connected; routing key {key}'}"

    async def close(self) -> None:
        await self._connection.close()

    async def _find(self, connection: AbstractConnection, kind: str, name: str) -> str:
        from aio_pika.exceptions import ChannelNotFoundEntity

        try:
            # A channel for each question: a missing exchange or queue closes it.
            channel = await connection.channel()
            if kind == "exchange":
                await channel.get_exchange(name)
                return f"the exchange {name}"
            queue = await channel.get_queue(name)
        except Exception as error:  # noqa: BLE001 - aiormq raises whatever closed the channel
            if isinstance(error, ChannelNotFoundEntity) and self._settings.declare:
                return f"the {kind} {name}, which the first event creates"
            raise self._retry(error) from None
        return f"the queue {name}, with {queue.declaration_result.message_count} messages"

    async def _dial(self) -> AbstractConnection:
        import aio_pika

        try:
            # Without aio_pika's reconnecting: the next event opens another connection.
            return await aio_pika.connect(
                self._settings.url,
                timeout=CONNECT_TIMEOUT_S,
                ssl_context=self._tls,
                heartbeat=HEARTBEAT_INTERVAL_S,
                client_properties={"connection_name": "wavehook"},
            )
        except Exception as error:  # noqa: BLE001 - many classes without a common base
            raise self._retry(error) from None

    async def _connect(self) -> RabbitPublisher:
        connection = await self._dial()
        async with closed_on_failure(connection.close):
            try:
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                exchange = await self._exchange(channel)
            except Exception as error:  # noqa: BLE001 - as above
                raise self._retry(error) from None
        publisher = RabbitPublisher(connection, channel, exchange)
        # A refusal closes the channel only, and fails all that wait on it.
        channel.close_callbacks.add(lambda *_: self._connection.drop(publisher))
        return publisher

    async def _exchange(self, channel: AbstractChannel) -> AbstractExchange:
        settings = self._settings
        exchange = channel.default_exchange
        if settings.exchange and settings.declare:
            exchange = await channel.declare_exchange(settings.exchange, "topic", durable=True)
        elif settings.exchange:
            exchange = await channel.get_exchange(settings.exchange, ensure=False)
        if settings.queue and settings.declare:
            queue = await channel.declare_queue(
                settings.queue, durable=True, arguments={"x-queue-type": "quorum"}
            )
            if settings.exchange:
                await queue.bind(settings.exchange, "#")
        return exchange

    async def _publish(
        self, publisher: RabbitPublisher, key: str, message: BrokerMessage, event: Event, id: str
    ) -> None:
        import aio_pika

        amqp_message = aio_pika.Message(
            message.body,
            headers={f"ce-{name}": value for name, value in message.attributes.items()},
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=id,
            timestamp=utc_datetime(happened_at(event)),
            type=TYPE_PREFIX + visible_ascii(event.type, 200),
            app_id="wavehook",
        )
        try:
            await publisher.exchange.publish(amqp_message, key, mandatory=True)
        except Exception as error:  # noqa: BLE001 - aiormq raises whatever closed the channel
            if publisher.channel.is_closed:
                self._connection.drop(publisher)
            raise self._retry(error, key) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this run was cancelled, but the confirmation: its connection has ended.
            raise Retry(f"{self._label}: the connection broke") from None

    def _retry(self, error: Exception, key: str = "") -> Retry:
        from aio_pika import exceptions

        settings = self._settings
        text = safe_reason(error)
        if isinstance(error, exceptions.PublishError) and settings.exchange:
            text = (
                f"no queue is bound to the exchange {settings.exchange} for {key}; bind one, or "
                "name it in `queue` and set `declare = true`"
            )
        elif isinstance(error, exceptions.PublishError):
            text = f"there is no queue {key}; create it, or set `declare = true`"
        elif isinstance(error, exceptions.DeliveryError):
            text = f"a queue refused the event, routing key {key}; it may be full"
        elif isinstance(error, exceptions.ChannelNotFoundEntity):
            text = f"{error}; create it, or set `declare = true`"
        elif isinstance(error, exceptions.ChannelPreconditionFailed):
            text = f"{error}; it exists with other properties: set `declare = false`"
        elif isinstance(error, exceptions.ProbableAuthenticationError):
            text = "it refuses the user or password in `url`"
        elif isinstance(error, exceptions.InvalidFrameError):
            text = "it closed the connection at once; does the vhost in `url` exist?"
        elif isinstance(error, exceptions.AMQPChannelError):
            text = str(error)
        elif isinstance(error, ConnectionError | exceptions.ChannelInvalidStateError):
            # The arguments are a number and a sentence of the system or the broker.
            detail = next((text for text in error.args[1:] if isinstance(text, str)), "")
            text = f"no connection, or it broke{f' ({detail})' if detail else ''}"
        return Retry(f"{self._label}: {text}")


def create(name: str, settings: Mapping[str, Any]) -> RabbitHandler:
    """Make the handler."""
    import aio_pika  # noqa: F401 - a missing extra shows at start

    chosen = read(RabbitSettings, name, settings)
    return RabbitHandler(chosen, tls_context(name, chosen))
