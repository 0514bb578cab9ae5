"""`kafka`: produces the event, and waits until all replicas in sync have it.

    [handlers.events]
    use = "kafka"
    servers = ["kafka-1.example:9092", "kafka-2.example:9092"]
    topic = "wavehook"                      # see `topic`

    [handlers.events.options]               # for librdkafka, as they are
    "security.protocol" = "SASL_SSL"
    "sasl.mechanism" = "PLAIN"
    "sasl.username" = "wavehook"
    "sasl.password" = "env:KAFKA_PASSWORD"

The message's key is the task id, so that all events of a
task lie in one partition; its value is a CloudEvent, see `cloudevent`.

The producer is idempotent: what it sends again by itself is not there twice. What the dispatcher
has sent again, after an answer that was lost, may be, with one `id`. Done means that the leader
and all replicas in sync have it; the result is `{"topic": …, "partition": …, "offset": …}`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from receiver.errors import Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.brokers.connection import Link, within
from receiver.handlers.brokers.topic import EXAMPLE, Form, Topic
from receiver.handlers.envelope import visible
from receiver.handlers.settings import SomeTexts, read
from submitter.prediction import JSON

if TYPE_CHECKING:
    from receiver.handlers.brokers.kafka_sender import Sender

PATIENCE = 30.0
"""Seconds, before a run has said how long it waits."""

_FORM = Form(
    divider=".",
    legal=re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+"),
    limit=249,
    words="a topic such as wavehook, of letters, digits, `.`, `_` and `-`",
)
_SERVER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")
_OURS = frozenset({"acks", "bootstrap.servers", "enable.idempotence", "message.timeout.ms"})


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_SERVER.fullmatch(server) for server in servers):
        raise ValueError("host:port, or a list of them")
    return servers


def _options(options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name in options:
        if name in _OURS:
            raise ValueError(f"no option that we set ourselves, as {name} is")
    return options


class Settings(Shape):
    """The handler's own settings."""

    servers: Annotated[SomeTexts, AfterValidator(_servers)] = Field(
        description="where Kafka is, such as 127.0.0.1:9092"
    )
    topic: Annotated[str, AfterValidator(_FORM.check)] = "wavehook"
    options: Annotated[dict[str, str | int | bool], AfterValidator(_options)] = Field(
        default_factory=dict, repr=False
    )


class Kafka:
    """Produces events."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._where = f"Kafka at {settings.servers[0]}"
        self._topic = Topic(settings.topic, _FORM)
        self._envelopes = Envelopes(settings)
        self._patience = PATIENCE
        self._link = Link(self._where, self._connect, _disconnect)

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Produce the event; see the module's docstring for what done means."""
        topic, message = self._topic.fill(event), self._envelopes.message(event)
        self._patience = left = context.deadline - self._clock()
        producing = self._produce(topic, visible(event.subject or event.id), message)
        return await within(left, self._where, producing)

    async def check(self) -> str:
        """Look whether the topic is there, without producing anything."""
        topic = self._topic.fill(EXAMPLE)
        sender = await self._link.get()
        partitions = await sender.partitions(topic)
        if partitions:
            return f"{self._where}: the topic {topic} has {partitions} partitions"
        if self._topic.fixed:
            raise Retry(
                f"{self._where}: there is no topic {topic}; make it, unless the brokers make "
                "topics by themselves (auto.create.topics.enable)"
            )
        return f"{self._where}: it answers; topics such as {topic} have to be there, or be made"

    async def close(self) -> None:
        """Let the connections go; the next event makes new ones."""
        await self._link.close()

    async def _produce(self, topic: str, key: str, message: Message) -> dict[str, JSON]:
        sender = await self._link.get()
        return await sender.send(topic, key, message)

    async def _connect(self) -> Sender:
        """Make a producer; it connects by itself, and again after a cut."""
        from receiver.handlers.brokers.kafka_sender import Sender

        # Given up before the run ends, which then can say why; librdkafka looks once a second.
        milliseconds = int(max(0.5, self._patience - 2) * 1000)
        configuration = _configuration(self._settings, milliseconds)
        return Sender(self._where, configuration, self._link.drop)


def create(name: str, settings: Mapping[str, Any]) -> Kafka:
    """Make the handler; librdkafka looks at the options at once.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import confluent_kafka  # noqa: F401 - so that it is missed at start

    from receiver.handlers.brokers.kafka_sender import faults

    chosen = read(Settings, name, settings)
    words = faults(_configuration(chosen, 1000))
    if words:
        for value in chosen.options.values():
            words = words.replace(f'"{value}"', '"…"')
        fault = f"handlers.{name}.options: '…', expected what librdkafka takes ({words})"
        raise SettingsError([fault])
    return Kafka(chosen)


def _configuration(settings: Settings, milliseconds: int) -> dict[str, Any]:
    return {
        "client.id": "wavehook",
        "reconnect.backoff.max.ms": 2000,
        **settings.options,
        "bootstrap.servers": ",".join(settings.servers),
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": milliseconds,
    }


async def _disconnect(sender: Sender) -> None:
    await sender.close()
