"""`kafka`: produces the event, and waits until all replicas in sync have it.

    [handlers.events]
    use = "kafka"
    servers = ["kafka-1.example:9092", "kafka-2.example:9092"]
    topic = "wavehook"                      # see `receiver.handlers.topic`

    [handlers.events.options]               # for librdkafka, as they are
    "security.protocol" = "SASL_SSL"
    "sasl.mechanism" = "PLAIN"
    "sasl.username" = "wavehook"
    "sasl.password" = "env:KAFKA_PASSWORD"

The message's key is the task id, so that all events of a
task lie in one partition; its value is a CloudEvent, see `receiver.handlers.cloudevent`.

The producer is idempotent: what it sends again by itself is not there twice. What the dispatcher
has sent again, after an answer that was lost, may be, with one `id`. Done means that the leader
and all replicas in sync have it; the result is `{"topic": …, "partition": …, "offset": …}`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.envelope import visible
from receiver.handlers.link import CONNECT, Link, within
from receiver.handlers.rules import SomeTexts
from receiver.handlers.settings import read
from receiver.handlers.topic import EXAMPLE, Form, Topic
from submitter.prediction import JSON

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

POLL = 0.2
"""Seconds that the thread waits for news before it looks whether it should end."""

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


class Sender:
    """A producer, and the thread that brings its delivery reports to the event loop.

    Args:
        configuration: for librdkafka.
        fatal: called on the event loop once the producer can do no more.
    """

    def __init__(self, configuration: dict[str, Any], fatal: Callable[[Sender], None]) -> None:
        from confluent_kafka import Producer

        self._loop = asyncio.get_running_loop()
        self._fatal = fatal
        self._ended = False
        self.trouble = ""
        self.producer: Producer = Producer(
            {**configuration, "error_cb": self._failed, "logger": _silent()}
        )
        self._thread = threading.Thread(target=self._listen, name="wavehook-kafka", daemon=True)
        self._thread.start()

    def send(self, topic: str, key: bytes, message: Message) -> asyncio.Future[dict[str, JSON]]:
        """Hand a message over; gives what its delivery report will say."""
        headers: dict[str, str | bytes | None] = {"content-type": message.content_type}
        headers |= {f"ce_{name}": value for name, value in message.attributes.items()}
        future: asyncio.Future[dict[str, JSON]] = self._loop.create_future()

        def reported(error: KafkaError | None, sent: Any) -> None:
            self._tell(_settle, future, error, sent.partition(), sent.offset(), topic)

        self.producer.produce(topic, message.body, key, on_delivery=reported, headers=headers)
        return future

    def end(self) -> None:
        """Stop; what was not delivered is forgotten. Blocks for a moment."""
        self._ended = True
        self._thread.join()
        self.producer.purge()
        # Reports of what was purged.
        self.producer.poll(0)

    def _listen(self) -> None:
        while not self._ended:
            self.producer.poll(POLL)

    def _failed(self, error: KafkaError) -> None:
        # That all brokers are down says less than why the last one was.
        if error.name() != "_ALL_BROKERS_DOWN":
            self.trouble = error.str()
        if error.fatal():
            self._tell(self._fatal, self)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


class Undelivered(Exception):
    """A delivery report that says so.

    Attributes:
        error: librdkafka's.
    """

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error


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
        from confluent_kafka import KafkaException

        topic = self._topic.fill(event)
        message = self._envelopes.message(event)
        key = visible(event.subject or event.id).encode()
        self._patience = left = context.deadline - self._clock()
        async with within(left, self._where):
            sender = await self._link.get()
            try:
                return await sender.send(topic, key, message)
            except KafkaException as error:
                raise self._judged(error.args[0], sender, topic) from None
            except Undelivered as error:
                raise self._judged(error.error, sender, topic) from None
            except BufferError:
                raise Retry(f"{self._where}: too much waits already") from None

    async def check(self) -> str:
        """Look whether the topic is there, without producing anything."""
        from confluent_kafka import KafkaException

        topic = self._topic.fill(EXAMPLE)
        sender = await self._link.get()
        try:
            # All topics: to ask for one may make it.
            found = await asyncio.to_thread(sender.producer.list_topics, timeout=CONNECT / 2)
        except KafkaException as error:
            raise self._judged(error.args[0], sender, topic) from None
        if topic in found.topics:
            partitions = len(found.topics[topic].partitions)
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

    async def _connect(self) -> Sender:
        """Make a producer; it connects by itself, and again after a cut."""
        # Given up before the run ends, which then can say why; librdkafka looks once a second.
        milliseconds = int(max(0.5, self._patience - 2) * 1000)
        return Sender(_configuration(self._settings, milliseconds), self._link.drop)

    def _judged(self, error: KafkaError, sender: Sender, topic: str) -> Retry | GiveUp:
        from confluent_kafka import KafkaError

        code = error.code()
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return GiveUp(f"{self._where}: larger than message.max.bytes")
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):  # noqa: SLF001 - its name for the client's own
            return Retry(f"{self._where}: there is no topic {topic}; make it")
        words = error.str()
        return Retry(f"{self._where}: {words}{f' ({sender.trouble})' if sender.trouble else ''}")


def create(name: str, settings: Mapping[str, Any]) -> Kafka:
    """Make the handler; librdkafka looks at the options at once.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    from confluent_kafka import KafkaException, Producer

    chosen = read(Settings, name, settings)
    try:
        Producer({**_configuration(chosen, 1000), "logger": _silent()})
    except KafkaException as error:
        words = error.args[0].str()
        for value in chosen.options.values():
            words = words.replace(f'"{value}"', '"…"')
        fault = f"handlers.{name}.options: '…', expected what librdkafka takes ({words})"
    else:
        return Kafka(chosen)
    raise SettingsError([fault])


def _silent() -> logging.Logger:
    """For what librdkafka would write to standard error, again and again; our errors have it."""
    logger = logging.getLogger("wavehook.kafka")
    logger.setLevel(logging.CRITICAL)
    return logger


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


def _settle(
    future: asyncio.Future[dict[str, JSON]],
    error: KafkaError | None,
    partition: int,
    offset: int,
    topic: str,
) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(Undelivered(error))
    else:
        future.set_result({"topic": topic, "partition": partition, "offset": offset})


async def _disconnect(sender: Sender) -> None:
    await asyncio.to_thread(sender.end)
