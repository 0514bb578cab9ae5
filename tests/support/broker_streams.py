"""NATS with JetStream, Redis and Kafka: what is there is read as often as one likes."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.support import needed
from tests.support.brokers import SECRET, Broker, parsed

FORMAT = JSONFormat()


class Nats(Broker):
    """One stream."""

    use = "nats"
    knows = True

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.url = url or needed.nats()
        self.subject = f"{self.name}.prediction.completed"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 4222

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        user = f"wavehook:{SECRET}@" if secret else ""
        url = f"nats://{user}127.0.0.1:{port or self.port}"
        return {"url": url, "subject": self.name + ".{type}"}

    async def make(self) -> None:
        client = await self._client()
        await client.jetstream().add_stream(name=self.name, subjects=[f"{self.name}.>"])
        await client.close()

    async def remove(self) -> None:
        client = await self._client()
        await client.jetstream().delete_stream(self.name)
        await client.close()

    async def events(self) -> list[CloudEvent]:
        client = await self._client()
        stream = client.jetstream()
        try:
            last = (await stream.stream_info(self.name)).state.last_seq
            found = [await stream.get_msg(self.name, number) for number in range(1, last + 1)]
        finally:
            await client.close()
        return [_nats(message.headers or {}, message.data or b"") for message in found]

    async def _client(self) -> Any:
        return await needed.module("nats").connect(self.url, max_reconnect_attempts=1)


def _nats(headers: dict[str, str], body: bytes) -> CloudEvent:
    if headers["content-type"].startswith("application/cloudevents"):
        return parsed({}, headers["content-type"], body)
    # The binding of NATS is the one of HTTP.
    found = http.from_binary(http.HTTPMessage(headers, body), FORMAT, CloudEvent)
    assert isinstance(found, CloudEvent)
    return found


class Redis(Broker):
    """One stream."""

    use = "redis"

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.url = url or needed.redis()

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 6379

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        user = f":{SECRET}@" if secret else ""
        path = urlsplit(self.url).path
        return {"url": f"redis://{user}127.0.0.1:{port or self.port}{path}", "stream": self.name}

    async def make(self) -> None:
        """The first event makes it."""

    async def remove(self) -> None:
        async with self._client() as client:
            await client.delete(self.name)

    async def events(self) -> list[CloudEvent]:
        async with self._client() as client:
            entries = await client.xrange(self.name)
        return [_redis(fields) for _, fields in entries]

    def _client(self) -> Any:
        return needed.module("redis.asyncio").from_url(self.url, decode_responses=True)


def _redis(fields: dict[str, str]) -> CloudEvent:
    if "event" in fields:
        return parsed({}, "application/cloudevents+json", fields["event"].encode())
    body, content_type = fields.pop("data"), fields.pop("datacontenttype")
    headers = {f"ce-{name}": value for name, value in fields.items()}
    return parsed(headers, content_type, body.encode())


class Kafka(Broker):
    """One topic of librdkafka's mock cluster: three brokers in this process."""

    use = "kafka"

    def __init__(self) -> None:
        super().__init__()
        confluent_kafka = needed.module("confluent_kafka")
        options = {"bootstrap.servers": "mock", "test.mock.num.brokers": 3, "log_level": 0}
        # It lives as long as this one.
        self._cluster = confluent_kafka.Producer(options)
        brokers = self._cluster.list_topics(timeout=10).brokers.values()
        self.servers = [f"{broker.host}:{broker.port}" for broker in brokers]

    @property
    def port(self) -> int:
        return int(self.servers[0].rpartition(":")[2])

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        servers = [f"127.0.0.1:{port}"] if port else self.servers
        options: dict[str, Any] = {"linger.ms": 0}
        if secret:
            options |= {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
            options |= {"sasl.username": "wavehook", "sasl.password": SECRET}
        return {"servers": servers, "topic": self.name, "options": options}

    async def make(self) -> None:
        """The mock cluster makes topics by itself."""

    async def remove(self) -> None:
        """It ends with this object."""

    async def events(self) -> list[CloudEvent]:
        return [event for event, _ in await self.messages()]

    async def messages(self) -> list[tuple[CloudEvent, Any]]:
        """The events, each with the message that it came in."""
        return await asyncio.to_thread(self._consume)

    def _consume(self) -> list[tuple[CloudEvent, Any]]:
        confluent_kafka = needed.module("confluent_kafka")
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": ",".join(self.servers),
                "group.id": self.name,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            topic = consumer.list_topics(timeout=10).topics.get(self.name)
            parts = [
                confluent_kafka.TopicPartition(self.name, number, 0)
                for number in (topic.partitions if topic else ())
            ]
            ends = sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
            consumer.assign(parts)
            found = [consumer.poll(10) for _ in range(ends)]
        finally:
            consumer.close()
        return [(_kafka(message), message) for message in found]


def _kafka(message: Any) -> CloudEvent:
    sent = kafka.KafkaMessage(dict(message.headers()), message.key(), message.value())
    found = kafka.from_kafka(sent, FORMAT, CloudEvent)
    assert isinstance(found, CloudEvent)
    return found
