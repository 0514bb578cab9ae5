"""What every pipeline handler promises, over a real broker each.

Two cannot be had here: SQS stands on moto's server, Kafka on librdkafka's own mock cluster.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import Retry, SettingsError
from receiver.event import DispatchState
from receiver.handlers.loading import load_section
from receiver.stores.memory import MemoryStore
from tests.support.broker_queues import Mqtt, RabbitMQ, Sqs, amazon
from tests.support.broker_streams import Kafka, Nats, Redis
from tests.support.brokers import SECRET, Broker, data
from tests.support.events import event
from tests.support.handler_harness import Handler
from tests.support.proxy import Proxy, proxy
from tests.support.servers import silent

PLACES = {"nats": Nats, "rabbitmq": RabbitMQ, "redis": Redis, "mqtt": Mqtt, "kafka": Kafka}

LIBRARIES = {
    "nats": "nats",
    "rabbitmq": "aio_pika",
    "redis": "redis",
    "mqtt": "paho.mqtt.client",
    "kafka": "confluent_kafka",
    "aws": "boto3",
}
"""By the handler's entry point; all handlers of the suite."""

TCP = ["nats", "rabbitmq", "redis", "mqtt"]
"""Those whose clients make one connection, to where they are told."""

Find = Callable[[str], Broker]


@pytest.fixture(scope="session")
def amazon_url() -> Iterator[str]:
    """What stands for AWS."""
    with amazon() as url:
        yield url


@pytest.fixture
def find(request: pytest.FixtureRequest) -> Find:
    """Makes a broker of a kind."""

    def find(use: str) -> Broker:
        return Sqs(request.getfixturevalue("amazon_url")) if use == "aws" else PLACES[use]()

    return find


@pytest.fixture(params=LIBRARIES)
async def broker(request: pytest.FixtureRequest, find: Find) -> AsyncIterator[Broker]:
    """A place on each broker, one after the other."""
    made = find(request.param)
    await made.make()
    yield made
    await made.remove()


@pytest.fixture(params=TCP)
async def tcp(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """A place on each broker that can be reached through a proxy."""
    made = PLACES[request.param]()
    await made.make()
    yield made
    await made.remove()


@pytest.fixture
async def way(tcp: Broker) -> AsyncIterator[Proxy]:
    """The network before it, which fails as networks do."""
    async with proxy(f"tcp://127.0.0.1:{tcp.port}") as found:
        yield found


@pytest.fixture
async def unused() -> int:
    """A port where nobody listens."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


def port(way: Proxy) -> int:
    return int(way.url.rpartition(":")[2])


def ids(events: list[Any]) -> list[str]:
    return [event.get_id() for event in events]


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_what_is_confirmed_is_there(broker: Broker, mode: str) -> None:
    """In both modes a plain client reads a CloudEvent that says what the event said."""
    async with Handler(broker.use, {**broker.settings(), "mode": mode}) as handler:
        await handler()
    (read,) = await broker.read(1)
    assert (read.get_id(), read.get_type(), read.get_subject(), read.get_source()) == (
        "wavespeed:task-1:completed",
        "wavehook.prediction.completed",
        "task-1",
        "urn:wavehook:wavespeed",
    )
    happened = read.get_time()
    assert happened is not None
    assert happened.timestamp() == event().occurred_at
    assert data(read)["prediction"] == {"id": "task-1", "status": "completed"}
    assert data(read)["context"] == event().context


async def test_an_event_sent_again_is_the_same(broker: Broker) -> None:
    """F25: under the same key, by the same handler; a broker that knows it again keeps one."""
    async with Handler(broker.use, broker.settings()) as handler:
        await handler()
        await handler()
        # What is sent last has come last.
        await handler("task-2")
    once = ["wavespeed:task-1:completed"] * (1 if broker.knows else 2)
    read = await broker.read(len(once) + 1)
    assert sorted(ids(read)) == [*once, "wavespeed:task-2:completed"]
    same = [each for each in read if each.get_subject() == "task-1"]
    assert all(each.get_attributes() == same[0].get_attributes() for each in same)
    assert all(data(each) == data(same[0]) for each in same)


async def test_many_at_once_share_one_connection(tcp: Broker, way: Proxy) -> None:
    """All of them are in flight together, and each is confirmed for itself."""
    names = [f"task-{number}" for number in range(100)]
    async with Handler(tcp.use, tcp.settings(port(way))) as handler:
        await asyncio.gather(*map(handler, names))
    assert way.connections == 1
    read = await tcp.read(100)
    assert sorted(ids(read)) == sorted(f"wavespeed:{name}:completed" for name in names)


async def test_what_a_cut_connection_has_confirmed_is_there(tcp: Broker, way: Proxy) -> None:
    """F25: who is cut off is told to try again, and the next run makes a new connection."""
    names, refused = [], 0
    async with Handler(tcp.use, tcp.settings(port(way))) as handler:
        for turn in range(3):
            await handler(f"first-{turn}")
            # The message that says this gets through, and its confirmation does not.
            way.cut_at = f"wavespeed:cut-{turn}:".encode()
            now = [f"{word}-{turn}" for word in ("near", "cut", "by")]
            came = await asyncio.gather(*map(handler, now), return_exceptions=True)
            names += [f"first-{turn}", *now]
            for name, what in zip(now, came, strict=True):
                if isinstance(what, BaseException):
                    assert isinstance(what, Retry)
                    refused += 1
                    await again(handler, name)
    assert refused >= 3
    assert way.connections >= 4
    read = await tcp.read(len(names))
    assert set(ids(read)) == {f"wavespeed:{name}:completed" for name in names}


async def again(handler: Handler, name: str) -> None:
    """As the dispatcher does: until it is done."""
    async with asyncio.timeout(10):
        while True:
            with suppress(Retry):
                await handler(name)
                return
            await asyncio.sleep(0)


@pytest.mark.parametrize("use", LIBRARIES)
async def test_a_broker_that_is_away_is_tried_again(use: str, find: Find, unused: int) -> None:
    """F16: not done, not dead; the error names the place and no password, also in `check`."""
    broker = find(use)
    async with Handler(broker.use, broker.settings(unused, secret=True)) as handler:
        with pytest.raises(Retry) as retry:
            await handler(seconds=1.0)
        with pytest.raises(Retry) as checked:
            await handler.check()
    place = broker.name if use == "aws" else f"127.0.0.1:{unused}"
    for text in (str(retry.value), str(checked.value)):
        assert place in text
        assert SECRET not in text


@pytest.mark.parametrize("use", LIBRARIES)
async def test_a_broker_that_says_nothing_does_not_hold_a_run(use: str, find: Find) -> None:
    """F24: a run is over at its deadline, and is tried again."""
    broker = find(use)
    async with silent() as deaf, Handler(broker.use, broker.settings(deaf)) as handler:
        with pytest.raises(Retry, match="no confirmation in time"):
            await handler(seconds=0.05)


async def test_a_connection_that_goes_silent_does_not_hold_a_run(tcp: Broker, way: Proxy) -> None:
    """F24: also where it was good before; and a new one is made after it was let go."""
    async with Handler(tcp.use, tcp.settings(port(way))) as handler:
        await handler("first")
        way.silence()
        with pytest.raises(Retry, match="no confirmation in time"):
            await handler("second", seconds=0.05)
        await handler.close()
        await handler("third")
    assert {"wavespeed:first:completed", "wavespeed:third:completed"} <= set(ids(await tcp.read(2)))


@pytest.mark.parametrize("use", LIBRARIES)
def test_it_closes_and_opens_on_another_loop(use: str, find: Find) -> None:
    """F41: a serverless platform may start and stop the app around every request."""
    broker = find(use)
    asyncio.run(broker.make())
    handler = Handler(broker.use, broker.settings())
    for number in range(2):
        asyncio.run(sent(handler, f"task-{number}"))
    read = asyncio.run(broker.read(2))
    asyncio.run(broker.remove())
    assert sorted(ids(read)) == [f"wavespeed:task-{number}:completed" for number in range(2)]


async def sent(handler: Handler, name: str) -> None:
    await handler(name)
    await handler.close()
    # Twice is no harm.
    await handler.close()


async def test_check_tells_of_what_is_there(broker: Broker) -> None:
    """It names the place, and sends nothing."""
    before = 0
    async with Handler(broker.use, broker.settings()) as handler:
        if broker.use == "kafka":
            await handler("first")
            before = 1
        said = await handler.check()
    assert (f":{broker.port}" if broker.use != "aws" else broker.name) in said
    assert len(await broker.events()) == before


HOSTILE = 'a\r\nX-Evil: 1\x00 é\u2028 ">*#+.$ \ud800/' + "x" * 3000


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_a_hostile_event_arrives_as_one_legal_message(broker: Broker, mode: str) -> None:
    """F17, F18: ids, type and model cannot break out of a header or add a level to a topic."""
    async with Handler(broker.use, {**broker.settings(), "mode": mode}) as handler:
        await handler(HOSTILE, model=HOSTILE)
    (read,) = await broker.read(1)
    for text in (read.get_id(), read.get_subject(), read.get_type()):
        assert text is not None
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 300
    assert data(read)["subject"] == HOSTILE


async def test_the_dispatcher_runs_it(broker: Broker) -> None:
    """F26: twenty are due, eight run at once; each is done, and its event is there."""
    store = MemoryStore()
    await store.open()
    installed = replace(Handler(broker.use, broker.settings()).installed, concurrency=8)
    dispatcher = Dispatcher(store, [installed], owner="test")
    events = [event(f"task-{number}", received_at=1.0) for number in range(20)]
    for one in events:
        await store.add(one, {"pipe": ()})
    assert await dispatcher.drain() == 20
    states = [(await store.dispatches(one.id))[0].state for one in events]
    await dispatcher.stop(1)
    await store.close()
    assert set(states) == {DispatchState.DONE}
    assert sorted(ids(await broker.read(20))) == sorted(one.id for one in events)


@pytest.mark.parametrize(
    ("use", "settings"),
    # The last key is the faulty one.
    [
        ("nats", {"url": f"nats://u:{SECRET}@h:4222/path"}),
        ("nats", {"url": f"nats://u:{SECRET}@h:x"}),
        ("rabbitmq", {"queue": "q", "url": f"http://u:{SECRET}@h"}),
        ("rabbitmq", {"queue": "q", "url": f"amqp://u:{SECRET}@h:x"}),
        ("redis", {"url": f"http://u:{SECRET}@h"}),
        ("redis", {"url": f"redis://u:{SECRET}@h:x"}),
        ("mqtt", {"url": f"mqtt://u:{SECRET}@h:x"}),
        ("mqtt", {"url": f"http://u:{SECRET}@h"}),
        ("kafka", {"servers": "h"}),
        ("kafka", {"servers": "h:1", "options": {"acks": SECRET}}),
        ("kafka", {"servers": "h:1", "options": {"security.protocol": SECRET}}),
        ("aws", {"to": "nowhere"}),
    ],
)
def test_faults_show_at_start_without_secrets(use: str, settings: dict[str, Any]) -> None:
    """F16: the fault names the key and what was expected, and so does an unknown key."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": use, **settings})
    assert SECRET not in str(error.value)
    assert f"handlers.pipe.{list(settings)[-1]}:" in str(error.value)
    with pytest.raises(SettingsError, match=r"handlers\.pipe\.sauce: unknown key, expected one of"):
        load_section("pipe", {"use": use, **settings, "sauce": "x"})


@pytest.mark.parametrize("use", LIBRARIES)
def test_a_missing_library_names_its_extra(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed the extra is told how to."""
    monkeypatch.setitem(sys.modules, LIBRARIES[use], None)
    with pytest.raises(SettingsError, match=rf"pip install 'wavehook\[{use}\]'"):
        load_section("pipe", {"use": use})
