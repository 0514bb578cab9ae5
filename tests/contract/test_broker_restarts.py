"""A broker is stopped and started in the middle of the work, and nothing confirmed is missing.

Each is a process of the test's own. RabbitMQ's takes seconds to start: it runs where
TEST_RABBITMQ_RESTART is set; what a cut connection does to it stands in the contract.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.event import DispatchState
from receiver.handlers.loading import load_section
from receiver.handlers.retry import Backoff
from receiver.stores.memory import MemoryStore
from tests.support.broker_processes import (
    Process,
    mosquitto,
    nats_server,
    rabbitmq_server,
    redis_server,
)
from tests.support.broker_queues import Mqtt, RabbitMQ
from tests.support.broker_streams import Nats, Redis
from tests.support.brokers import Broker
from tests.support.events import event
from tests.support.waiting import until

COUNT = 300


def place(use: str, folder: Path) -> tuple[Process, Broker, int]:
    """A broker's process, a place on it, and the signal that it has to survive."""
    match use:
        case "nats":
            process = nats_server(folder)
            return process, Nats(f"nats://127.0.0.1:{process.port}"), signal.SIGKILL
        case "redis":
            process = redis_server(folder)
            return process, Redis(f"redis://127.0.0.1:{process.port}/0"), signal.SIGKILL
        case "mqtt":
            # It writes what it has when it stops.
            process = mosquitto(folder)
            return process, Mqtt(f"mqtt://127.0.0.1:{process.port}"), signal.SIGTERM
        case _:
            process = rabbitmq_server(folder)
            return process, RabbitMQ(f"amqp://guest@127.0.0.1:{process.port}/"), signal.SIGTERM


@pytest.mark.parametrize("use", ["nats", "redis", "mqtt", "rabbitmq"])
async def test_nothing_confirmed_is_missing(use: str, tmp_path: Path) -> None:
    """F21, F25, F26: what was in flight is tried again until it is there, and all of it is."""
    if use == "rabbitmq" and not os.environ.get("TEST_RABBITMQ_RESTART"):
        pytest.skip("takes 20 s; set TEST_RABBITMQ_RESTART")
    process, broker, number = place(use, tmp_path)
    store = MemoryStore()
    await store.open()
    async with process:
        await broker.make()
        made = load_section("pipe", {"use": use, **broker.settings()})
        patient = replace(made, retry=Backoff(attempts=1000, base=0.05, cap=0.1), timeout=5.0)
        dispatcher = Dispatcher(store, [patient], owner="test", poll=0.05)
        await dispatcher.start()
        events = [event(f"task-{number}", received_at=1.0) for number in range(COUNT)]

        async def states() -> list[DispatchState]:
            return [(await store.dispatches(one.id))[0].state for one in events[:stored]]

        async def some_done() -> bool:
            return (await states()).count(DispatchState.DONE) > COUNT // 10

        async def all_done() -> bool:
            return set(await states()) == {DispatchState.DONE}

        async def some_failed() -> bool:
            errors = [(await store.dispatches(one.id))[0].error for one in events]
            return any(errors)

        stored = COUNT // 2
        for one in events[:stored]:
            await store.add(one, {"pipe": ()})
        await until(some_done)
        stopping = asyncio.ensure_future(process.stop(number))
        for one in events[stored:]:
            await store.add(one, {"pipe": ()})
        stored = COUNT
        await stopping
        await until(some_failed)
        await process.start()
        await until(all_done, 60)
        await dispatcher.stop(1)
        read = await broker.read(COUNT)
    await store.close()
    assert {one.get_id() for one in read} == {one.id for one in events}
