"""RabbitMQ, MQTT and SQS: what was read is gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest
from cloudevents.core.v1.event import CloudEvent

from tests.support import needed
from tests.support.brokers import PATIENCE, SECRET, Broker, parsed


class RabbitMQ(Broker):
    """One exchange with one queue."""

    use = "rabbitmq"

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.url = url or needed.rabbitmq()
        self.messages: list[Any] = []

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5672

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        password = SECRET if secret else "guest"
        url = f"amqp://guest:{password}@127.0.0.1:{port or self.port}/"
        return {"url": url, "exchange": self.name}

    async def make(self) -> None:
        async with await self._client() as client:
            channel = await client.channel()
            exchange = await channel.declare_exchange(self.name, "topic", durable=True)
            queue = await channel.declare_queue(self.name, durable=True)
            await queue.bind(exchange, "#")

    async def remove(self) -> None:
        async with await self._client() as client:
            channel = await client.channel()
            await channel.queue_delete(self.name)
            await channel.exchange_delete(self.name)

    async def events(self) -> list[CloudEvent]:
        async with await self._client() as client:
            queue = await (await client.channel()).get_queue(self.name)
            while (message := await queue.get(no_ack=True, fail=False)) is not None:
                self.messages.append(message)
        return [
            parsed(message.headers, message.content_type, message.body) for message in self.messages
        ]

    async def _client(self) -> Any:
        return await needed.module("aio_pika").connect(self.url)


class Mqtt(Broker):
    """One topic, and a session that subscribes to it and lasts."""

    use = "mqtt"

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.url = url or needed.mqtt()
        self.messages: list[Any] = []

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 1883

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        user = f"wavehook:{SECRET}@" if secret else ""
        url = f"mqtt://{user}127.0.0.1:{port or self.port}"
        return {"url": url, "topic": self.name + "/{type}"}

    async def make(self) -> None:
        await asyncio.to_thread(self._meet, 3600)

    async def remove(self) -> None:
        await asyncio.to_thread(self._meet, 0)

    async def events(self) -> list[CloudEvent]:
        await asyncio.to_thread(self._meet, 3600)
        return [_mqtt(message) for message in self.messages]

    def _meet(self, expiry: int) -> None:
        """Take what waits; all of it has come when a message to ourselves has."""
        paho = needed.module("paho.mqtt.client")
        properties = needed.module("paho.mqtt.properties").Properties(1)
        properties.SessionExpiryInterval = expiry
        ready, done = threading.Event(), threading.Event()
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, self.name, protocol=paho.MQTTv5)
        own = f"{self.name}-own"

        def came(_: Any, __: Any, message: Any) -> None:
            if message.topic == own:
                done.set()
            else:
                self.messages.append(message)

        client.on_message = came
        client.on_connect = lambda *_: client.subscribe([(f"{self.name}/#", 1), (own, 1)])
        client.on_subscribe = lambda *_: ready.set()
        client.connect("127.0.0.1", self.port, clean_start=False, properties=properties)
        client.loop_start()
        try:
            assert ready.wait(PATIENCE)
            client.publish(own, b"", qos=1)
            assert done.wait(PATIENCE)
        finally:
            client.disconnect()
            client.loop_stop()


def _mqtt(message: Any) -> CloudEvent:
    headers = {
        f"ce-{name}": value for name, value in getattr(message.properties, "UserProperty", ())
    }
    return parsed(headers, message.properties.ContentType, message.payload)


@contextmanager
def amazon() -> Iterator[str]:
    """What stands for AWS: moto's server; gives its address."""
    needed.module("boto3")
    server = needed.module("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "wavehook")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in [name for name in os.environ if name in ("AWS_PROFILE", "AWS_SESSION_TOKEN")]:
            patch.delenv(name)
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


class Sqs(Broker):
    """One queue of moto's."""

    use = "aws"

    def __init__(self, url: str, *, fifo: bool = False) -> None:
        super().__init__()
        self.url = url
        self.fifo = fifo
        self.name += ".fifo" if fifo else ""
        self.to = f"{url}/123456789012/{self.name}"
        self.messages: list[Any] = []
        self._clients: dict[str, Any] = {}

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    def settings(self, port: int = 0, *, secret: bool = False) -> dict[str, Any]:
        # The secret stands in the environment.
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return {"to": self.to, "endpoint": endpoint, "region": "eu-west-1"}

    async def make(self) -> None:
        fifo = {"FifoQueue": "true"} if self.fifo else {}
        await self.ask("sqs", "create_queue", QueueName=self.name, Attributes=fifo)

    async def remove(self) -> None:
        await self.ask("sqs", "delete_queue", QueueUrl=self.to)
        for client in self._clients.values():
            client.close()

    async def events(self) -> list[CloudEvent]:
        while await self.take():
            pass
        return [_sqs(message) for message in self.messages]

    async def take(self) -> int:
        """Take what waits, ten at most; gives how many there were."""
        found = await self.ask(
            "sqs",
            "receive_message",
            QueueUrl=self.to,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages = found.get("Messages", [])
        for message in messages:
            await self.ask(
                "sqs",
                "delete_message",
                QueueUrl=self.to,
                ReceiptHandle=message["ReceiptHandle"],
            )
        self.messages += messages
        return len(messages)

    async def ask(self, service: str, method: str, **arguments: Any) -> Any:
        """Call AWS, by a client of our own."""
        if service not in self._clients:
            self._clients[service] = _session().client(service, endpoint_url=self.url)
        return await asyncio.to_thread(getattr(self._clients[service], method), **arguments)


@cache
def _session() -> Any:
    """One for all: each reads the services' descriptions anew."""
    return needed.module("boto3").session.Session()


def _sqs(message: Any) -> CloudEvent:
    attributes = {
        name: value["StringValue"] for name, value in message["MessageAttributes"].items()
    }
    content_type = attributes.pop("content-type")
    return parsed(attributes, content_type, message["Body"].encode())
