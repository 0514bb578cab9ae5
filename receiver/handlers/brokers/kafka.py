"""`kafka`: produces the event to Kafka, and waits until all in-sync replicas have it.

    [handlers.events]
    use = "kafka"
    servers = ["kafka-1.example:9092", "kafka-2.example:9092"]  # host:port, one or more; required
    topic = "wavehook"                      # a template, see `topic`; this is the default
    mode, source                            # of the CloudEvent, see `cloudevent`

    [handlers.events.options]               # passed on to librdkafka, for example for TLS and SASL
    "security.protocol" = "SASL_SSL"
    "sasl.mechanism" = "PLAIN"
    "sasl.username" = "wavehook"
    "sasl.password" = "env:KAFKA_PASSWORD"

The message's key is the task id, so that all events of a task are in one partition. The options
`acks`, `bootstrap.servers`, `enable.idempotence` and `message.timeout.ms` are set by the handler:
https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md

Done: the leader and all in-sync replicas have the event. The result is
`{"topic": …, "partition": …, "offset": …}`.

Retried: the topic does not exist, the producer's queue is full, the brokers do not answer, or
there is no delivery report before the handler's `timeout`. Not retried: the event is larger than
`message.max.bytes`.

Duplicates: the producer is idempotent, so that its own retries are stored once. After a lost
answer, the dispatcher's retry may store the event twice, with the same `id`.
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
from receiver.handlers.brokers.cloudevent import (
    BrokerMessage,
    CloudEventEncoder,
    CloudEventSettings,
)
from receiver.handlers.brokers.connection import CONNECT_TIMEOUT_S, SharedConnection
from receiver.handlers.brokers.topic import EXAMPLE_EVENT, TopicRules, TopicTemplate
from receiver.handlers.envelope import visible_ascii
from receiver.handlers.settings import SomeTexts, read
from submitter.prediction import JSON

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

POLL_INTERVAL_S = 0.2
"""The longest wait of the polling thread before it sees that it should end."""

TOPIC_RULES = TopicRules(
    separator=".",
    pattern=re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+"),
    max_chars=249,
    expected="a topic such as wavehook, of letters, digits, `.`, `_` and `-`",
)
_DEFAULT_RUN_TIMEOUT_S = 30.0
_SERVER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")
_RESERVED_OPTIONS = frozenset(
    {"acks", "bootstrap.servers", "enable.idempotence", "message.timeout.ms"}
)
_NO_TOPIC = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_SERVER.fullmatch(server) for server in servers):
        raise ValueError("host:port, or a list of them")
    return servers


def _options(options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name in options:
        if name in _RESERVED_OPTIONS:
            raise ValueError(f"other options than {name}, which the handler sets itself")
    return options


class KafkaSettings(CloudEventSettings):
    """The settings of the handler."""

    servers: Annotated[SomeTexts, AfterValidator(_servers)] = Field(
        description="Kafka's bootstrap servers, such as 127.0.0.1:9092"
    )
    topic: Annotated[str, AfterValidator(TOPIC_RULES.check)] = "wavehook"
    options: Annotated[dict[str, str | int | bool], AfterValidator(_options)] = Field(
        default_factory=dict, repr=False
    )

    def configuration(self, message_timeout: float) -> dict[str, Any]:
        """The configuration of librdkafka; `message_timeout` is in seconds."""
        return {
            "client.id": "wavehook",
            "reconnect.backoff.max.ms": 2000,
            **self.options,
            "bootstrap.servers": ",".join(self.servers),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": int(message_timeout * 1000),
        }


class KafkaHandler:
    """Produces events."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._label = f"Kafka at {settings.servers[0]}"
        self._topic = TopicTemplate(settings.topic, TOPIC_RULES)
        self._encoder = CloudEventEncoder(settings)
        self._run_timeout = _DEFAULT_RUN_TIMEOUT_S
        self._connection = SharedConnection(self._label, self._connect, KafkaProducer.close)

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        topic, message = self._topic.fill(event), self._encoder.message(event)
        self._run_timeout = context.deadline - time.time()
        key = visible_ascii(event.subject or event.id)
        return await self._connection.use(
            context.deadline, lambda producer: producer.send(topic, key, message)
        )

    async def check(self) -> str:
        """Find the topic; produces nothing."""
        topic = self._topic.fill(EXAMPLE_EVENT)
        producer = await self._connection.get()
        partitions = await producer.partitions(topic)
        if partitions:
            return f"{self._label}: the topic {topic} has {partitions} partitions"
        if self._topic.constant:
            raise Retry(
                f"{self._label}: there is no topic {topic}; create it, unless the brokers create "
                "topics by themselves (auto.create.topics.enable)"
            )
        return f"{self._label}: connected; topics such as {topic} must exist or be created"

    async def close(self) -> None:
        await self._connection.close()

    async def _connect(self) -> KafkaProducer:
        # Expires before the run does, so that the run still learns the reason; librdkafka looks
        # for expired messages once a second.
        message_timeout = max(0.5, self._run_timeout - 2)
        return KafkaProducer(
            self._label, self._settings.configuration(message_timeout), self._connection.drop
        )


class KafkaProducer:
    """A producer of librdkafka, and the thread that polls it for delivery reports.

    It connects by itself, and again after a cut. `confluent_kafka.aio.AIOProducer` (2.16) is not
    used: it refuses messages with headers, which both modes of the CloudEvent need.

    Args:
        label: the cluster's name for errors.
        configuration: of librdkafka.
        lost: called on the event loop after a fatal error, when it can produce no more.
    """

    def __init__(
        self, label: str, configuration: dict[str, Any], lost: Callable[[KafkaProducer], None]
    ) -> None:
        from confluent_kafka import Producer

        self._label = label
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._last_error = ""
        self._producer = Producer(
            {**configuration, "error_cb": self._client_error, "logger": _silent_logger()}
        )
        self._thread = threading.Thread(target=self._poll, name="wavehook-kafka", daemon=True)
        self._thread.start()

    async def send(self, topic: str, key: str, message: BrokerMessage) -> dict[str, JSON]:
        """Produce a message, and wait for its delivery report.

        Raises:
            Retry: it was not delivered.
            GiveUp: it is too large.
        """
        from confluent_kafka import KafkaException

        headers: dict[str, str | bytes | None] = {**message.headers("ce_")}
        future: asyncio.Future[dict[str, JSON]] = self._loop.create_future()

        def reported(error: KafkaError | None, sent: Any) -> None:
            if error is not None:
                self._call_on_loop(_settle, future, self._failure(error, topic))
            else:
                place = {"topic": topic, "partition": sent.partition(), "offset": sent.offset()}
                self._call_on_loop(_settle, future, place)

        try:
            self._producer.produce(topic, message.body, key, on_delivery=reported, headers=headers)
        except KafkaException as error:
            raise self._failure(error.args[0], topic) from None
        except BufferError:
            raise Retry(f"{self._label}: the producer's queue is full") from None
        return await future

    async def partitions(self, topic: str) -> int:
        """The number of a topic's partitions; 0 if there is no such topic.

        Raises:
            Retry: no broker answers.
        """
        from confluent_kafka import KafkaException

        try:
            # Lists all topics: a question about one may create it.
            found = await asyncio.to_thread(
                self._producer.list_topics, timeout=CONNECT_TIMEOUT_S / 2
            )
        except KafkaException as error:
            raise self._failure(error.args[0], topic) from None
        return len(found.topics[topic].partitions) if topic in found.topics else 0

    async def close(self) -> None:
        """End the thread, and forget the messages that were not delivered."""
        self._closed = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._thread.join()
        self._producer.purge()
        # Delivers the reports of the purged messages.
        self._producer.poll(0)

    def _poll(self) -> None:
        while not self._closed:
            self._producer.poll(POLL_INTERVAL_S)

    def _client_error(self, error: KafkaError) -> None:
        # "All brokers are down" says less than the error of the last one before it.
        if error.name() != "_ALL_BROKERS_DOWN":
            self._last_error = error.str()
        if error.fatal():
            self._call_on_loop(self._lost, self)

    def _failure(self, error: KafkaError, topic: str) -> Retry | GiveUp:
        if error.name() == "MSG_SIZE_TOO_LARGE":
            return GiveUp(f"{self._label}: larger than message.max.bytes")
        if error.name() in _NO_TOPIC:
            return Retry(f"{self._label}: there is no topic {topic}; create it")
        cause = f" ({self._last_error})" if self._last_error else ""
        return Retry(f"{self._label}: {error.str()}{cause}")

    def _call_on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        # RuntimeError: the event loop is closed, and no run waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def create(name: str, settings: Mapping[str, Any]) -> KafkaHandler:
    """Make the handler; librdkafka checks the options at once."""
    from confluent_kafka import KafkaException, Producer

    chosen = read(KafkaSettings, name, settings)
    text = ""
    try:
        Producer({**chosen.configuration(1.0), "logger": _silent_logger()})
    except KafkaException as error:
        text = str(error.args[0].str())
    if text:
        for value in chosen.options.values():
            text = text.replace(f'"{value}"', '"…"')
        fault = f"handlers.{name}.options: '…', expected what librdkafka accepts ({text})"
        raise SettingsError([fault])
    return KafkaHandler(chosen)


def _settle(
    future: asyncio.Future[dict[str, JSON]], outcome: dict[str, JSON] | Retry | GiveUp
) -> None:
    if future.done():
        return
    if isinstance(outcome, dict):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _silent_logger() -> logging.Logger:
    """Keeps librdkafka from writing its errors to standard error; ours contain them."""
    logger = logging.getLogger("wavehook.kafka")
    logger.setLevel(logging.CRITICAL)
    return logger
