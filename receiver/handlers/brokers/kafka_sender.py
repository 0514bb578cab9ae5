"""A producer of librdkafka's, and the thread that brings its reports to the event loop.

Imported where a handler is made: it needs the extra `kafka`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from receiver.errors import GiveUp, Retry
from receiver.handlers.brokers.cloudevent import Message
from receiver.handlers.brokers.connection import CONNECT
from submitter.prediction import JSON

POLL = 0.2
"""Seconds that the thread waits for news before it looks whether it should end."""

_NO_TOPIC = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")


class Sender:
    """A producer; it connects by itself, and again after a cut.

    Args:
        where: which cluster, for errors.
        configuration: for librdkafka.
        fatal: called on the event loop once the producer can do no more.
    """

    def __init__(
        self, where: str, configuration: dict[str, Any], fatal: Callable[[Sender], None]
    ) -> None:
        self._where = where
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._trouble = ""
        self._producer = Producer({**configuration, "error_cb": self._failed, "logger": _silent()})
        self._thread = threading.Thread(target=self._listen, name="wavehook-kafka", daemon=True)
        self._thread.start()

    async def send(self, topic: str, key: str, message: Message) -> dict[str, JSON]:
        """Hand a message over, and wait for its delivery report.

        Raises:
            Retry: it was not delivered.
            GiveUp: it is too large.
        """
        headers: dict[str, str | bytes | None] = {"content-type": message.content_type}
        headers |= {f"ce_{name}": value for name, value in message.attributes.items()}
        future: asyncio.Future[dict[str, JSON]] = self._loop.create_future()

        def reported(error: KafkaError | None, sent: Any) -> None:
            if error is not None:
                self._tell(_settle, future, self._judged(error, topic))
            else:
                place = {"topic": topic, "partition": sent.partition(), "offset": sent.offset()}
                self._tell(_settle, future, place)

        try:
            self._producer.produce(topic, message.body, key, on_delivery=reported, headers=headers)
        except KafkaException as error:
            raise self._judged(error.args[0], topic) from None
        except BufferError:
            raise Retry(f"{self._where}: too much waits already") from None
        return await future

    async def partitions(self, topic: str) -> int:
        """How many a topic has; 0 where there is none.

        Raises:
            Retry: nobody answers.
        """
        try:
            # All topics: to ask for one may make it.
            found = await asyncio.to_thread(self._producer.list_topics, timeout=CONNECT / 2)
        except KafkaException as error:
            raise self._judged(error.args[0], topic) from None
        return len(found.topics[topic].partitions) if topic in found.topics else 0

    async def close(self) -> None:
        """End it; what was not delivered is forgotten."""
        self._ended = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._thread.join()
        self._producer.purge()
        # Reports of what was purged.
        self._producer.poll(0)

    def _listen(self) -> None:
        while not self._ended:
            self._producer.poll(POLL)

    def _failed(self, error: KafkaError) -> None:
        # That all brokers are down says less than why the last one was.
        if error.name() != "_ALL_BROKERS_DOWN":
            self._trouble = error.str()
        if error.fatal():
            self._tell(self._fatal, self)

    def _judged(self, error: KafkaError, topic: str) -> Retry | GiveUp:
        if error.name() == "MSG_SIZE_TOO_LARGE":
            return GiveUp(f"{self._where}: larger than message.max.bytes")
        if error.name() in _NO_TOPIC:
            return Retry(f"{self._where}: there is no topic {topic}; make it")
        trouble = f" ({self._trouble})" if self._trouble else ""
        return Retry(f"{self._where}: {error.str()}{trouble}")

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def faults(configuration: dict[str, Any]) -> str:
    """What librdkafka says against a configuration; empty where it takes it."""
    try:
        Producer({**configuration, "logger": _silent()})
    except KafkaException as error:
        return str(error.args[0].str())
    return ""


def _settle(
    future: asyncio.Future[dict[str, JSON]], came: dict[str, JSON] | Retry | GiveUp
) -> None:
    if future.done():
        return
    if isinstance(came, dict):
        future.set_result(came)
    else:
        future.set_exception(came)


def _silent() -> logging.Logger:
    """For what librdkafka would write to standard error, again and again; our errors have it."""
    logger = logging.getLogger("wavehook.kafka")
    logger.setLevel(logging.CRITICAL)
    return logger
