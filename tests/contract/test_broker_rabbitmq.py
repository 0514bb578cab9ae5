"""The `rabbitmq` handler's own: routes, what is declared, and how a message looks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Retry, SettingsError
from receiver.handlers.loading import load_section
from tests.support import needed
from tests.support.broker_queues import RabbitMQ
from tests.support.brokers import SECRET
from tests.support.certificates import certificate
from tests.support.handler_harness import Handler
from tests.support.servers import serving


@pytest.fixture
async def broker() -> AsyncIterator[RabbitMQ]:
    """A name, with no exchange and no queue yet."""
    made = RabbitMQ()
    yield made
    await made.remove()


def settings(broker: RabbitMQ, **changes: Any) -> dict[str, Any]:
    return {"url": broker.settings()["url"], **changes}


async def test_a_message_is_persistent_and_known_by_its_key(broker: RabbitMQ) -> None:
    """F25: `message_id` is the dispatch's key, for consumers that look."""
    await broker.make()
    async with Handler("rabbitmq", broker.settings()) as handler:
        assert await handler() is None
    await broker.read(1)
    (message,) = broker.messages
    assert message.delivery_mode == 2
    assert message.message_id == "wavespeed:task-1:completed/pipe"
    assert message.routing_key == "prediction.completed"
    assert message.content_type == "application/cloudevents+json"
    assert message.type == "wavehook.prediction.completed"
    assert message.app_id == "wavehook"


async def test_what_no_queue_wants_is_not_done(broker: RabbitMQ) -> None:
    """It is mandatory: the error says what to do, with an exchange and without."""
    await broker.make()
    async with Handler("rabbitmq", settings(broker, queue=f"{broker.name}-no")) as handler:
        with pytest.raises(Retry, match=f"there is no queue {broker.name}-no; create it"):
            await handler()
    client = await needed.module("aio_pika").connect(broker.url)
    await (await client.channel()).queue_delete(broker.name)
    await client.close()
    async with Handler("rabbitmq", broker.settings()) as handler:
        with pytest.raises(
            Retry, match=f"no queue is bound to the exchange {broker.name} for prediction"
        ):
            await handler()


async def test_what_is_missing_is_told(broker: RabbitMQ) -> None:
    """The same by a run and by `check`; and the next run does not meet a dead channel."""
    async with Handler("rabbitmq", broker.settings()) as handler:
        for trying in (handler, handler.check, handler):
            with pytest.raises(Retry, match=r"NOT_FOUND - no exchange .*set `declare = true`"):
                await trying()


async def test_exchange_and_queue_are_made_where_asked_for(broker: RabbitMQ) -> None:
    """A durable topic, and a quorum queue that gets all of it; both may be there already."""
    declared = settings(broker, exchange=broker.name, queue=broker.name, declare=True)
    async with Handler("rabbitmq", declared) as handler:
        for _ in range(2):
            assert (await handler.check()).count("which the first event creates") == 2
        await handler(type="a.b")
        said = await handler.check()
    assert said.endswith(f"the exchange {broker.name} and the queue {broker.name}, with 1 messages")
    async with Handler("rabbitmq", settings(broker, queue=broker.name, declare=True)) as handler:
        await handler("task-2")
    assert len(await broker.read(2)) == 2
    assert [message.routing_key for message in broker.messages] == ["a.b", broker.name]


async def test_what_is_there_in_another_form_is_left(broker: RabbitMQ) -> None:
    """A queue of another type is nobody's to change."""
    await broker.make()
    async with Handler("rabbitmq", settings(broker, queue=broker.name, declare=True)) as handler:
        with pytest.raises(Retry, match=r"PRECONDITION_FAILED .*set `declare = false`"):
            await handler()


async def test_a_full_queue_refuses(broker: RabbitMQ) -> None:
    """F27: it was not taken, and is tried again."""
    client = await needed.module("aio_pika").connect(broker.url)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await (await client.channel()).declare_queue(broker.name, arguments=limits, durable=True)
    await client.close()
    async with Handler("rabbitmq", settings(broker, queue=broker.name)) as handler:
        await handler()
        with pytest.raises(
            Retry, match=r"a queue refused the event, routing key .*; it may be full"
        ):
            await handler("task-2")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"guest:{SECRET}@127.0.0.1:PORT/", "it refuses the user or password in `url`"),
        ("guest:guest@127.0.0.1:PORT/nowhere", "does the vhost in `url` exist?"),
    ],
)
async def test_who_is_not_let_in_is_told(broker: RabbitMQ, path: str, words: str) -> None:
    """F16: what is wrong, and no password."""
    url = f"amqp://{path.replace('PORT', str(broker.port))}"
    async with Handler("rabbitmq", {"url": url, "queue": "q"}) as handler:
        with pytest.raises(Retry) as error:
            await handler.check()
    assert words in str(error.value)
    assert SECRET not in str(error.value)


async def test_a_broker_behind_tls(broker: RabbitMQ, tmp_path: Path) -> None:
    """By certificate we come in; one that we do not trust we do not talk to."""
    cert, key = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    tls.load_cert_chain(cert, key)
    tls.verify_mode = ssl.CERT_REQUIRED

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", broker.port)
        await asyncio.gather(passed(reader, back), passed(there, writer))

    await broker.make()
    files = {"ca": str(cert), "cert": str(cert), "key": str(key)}
    async with serving(meet, tls) as port:
        settings = broker.settings(port)
        settings["url"] = settings["url"].replace("amqp://", "amqps://")
        async with Handler("rabbitmq", settings | files) as handler:
            await handler()
        async with Handler("rabbitmq", settings) as handler:
            with pytest.raises(Retry, match="certificate verify failed"):
                await handler()
    assert len(await broker.read(1)) == 1


async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    finally:
        writer.transport.abort()


async def test_check_without_a_name_says_so(broker: RabbitMQ) -> None:
    """A routing key alone, for the default exchange, may be any queue's name."""
    async with Handler("rabbitmq", settings(broker, routing_key="videos.{model}")) as handler:
        said = await handler.check()
    assert said.endswith("connected; routing key videos.kwaivgi_kling-v2_1-i2v-standard")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, ": expected an `exchange` or a `queue`"),
        ({"queue": "q", "routing_key": "k"}, ": expected an `exchange` beside `routing_key`"),
        ({"queue": "q\n"}, ".queue: 'q\\n', expected"),
        ({"exchange": "e", "routing_key": "{x}"}, ".routing_key: '{x}', expected a routing key"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], fault: str) -> None:
    """F16: told at the start, without the URL."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": "rabbitmq", "url": f"amqp://u:{SECRET}@h", **settings})
    assert f"handlers.pipe{fault}" in str(error.value)
    assert SECRET not in str(error.value)
