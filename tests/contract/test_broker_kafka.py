"""The `kafka` handler's own, on librdkafka's mock cluster of three brokers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry
from receiver.handlers.brokers.kafka import KafkaHandler
from tests.support import needed
from tests.support.broker_streams import Kafka
from tests.support.handler_harness import Handler


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "wavehook-kafka"]


async def test_all_of_a_task_lies_in_one_partition() -> None:
    """The key is the task id; the result says where the event is."""
    broker = Kafka()
    async with Handler("kafka", broker.settings()) as handler:
        tasks = [f"task-{number % 5}" for number in range(20)]
        came = await asyncio.gather(*map(handler, tasks))
    found = {
        (message.partition(), message.offset()): event for event, message in await broker.messages()
    }
    partitions: dict[str, set[int]] = {}
    for task, result in zip(tasks, came, strict=True):
        assert result["topic"] == broker.name
        assert found[result["partition"], result["offset"]].get_subject() == task
        assert found[result["partition"], result["offset"]].get_extension("partitionkey") == task
        partitions.setdefault(task, set()).add(result["partition"])
    assert all(len(numbers) == 1 for numbers in partitions.values())


async def test_what_is_too_large_is_given_up() -> None:
    """F23: it will be too large the next time too."""
    broker = Kafka()
    async with Handler("kafka", broker.settings()) as handler:
        with pytest.raises(GiveUp, match=r"larger than message\.max\.bytes"):
            await handler(context="x" * 1_100_000)


async def test_more_than_its_queue_holds_is_tried_again() -> None:
    """F26: nothing grows without a limit."""
    broker = Kafka()
    settings = broker.settings()
    settings["options"] |= {"queue.buffering.max.messages": 1}
    async with Handler("kafka", settings) as handler:
        came = await asyncio.gather(*map(handler, "abcdef"), return_exceptions=True)
    refused = [str(each) for each in came if isinstance(each, Retry)]
    assert refused
    assert all(text.endswith("the producer's queue is full") for text in refused)
    assert len(await broker.events()) == 6 - len(refused)


async def test_check_does_not_make_a_topic() -> None:
    """One that is not there is told; of a template it cannot know."""
    broker = Kafka()
    async with Handler("kafka", broker.settings()) as handler:
        with pytest.raises(Retry, match=f"there is no topic {broker.name}; create it, unless"):
            await handler.check()
    settings = broker.settings() | {"topic": broker.name + ".{type}"}
    async with Handler("kafka", settings) as handler:
        said = await handler.check()
    assert f"topics such as {broker.name}.prediction.completed must exist" in said
    assert await broker.events() == []


async def test_a_producer_that_can_do_no_more_is_replaced() -> None:
    """Librdkafka says so when it cannot keep the order that idempotence promises."""
    error = needed.module("confluent_kafka").KafkaError
    broker = Kafka()
    async with Handler("kafka", broker.settings()) as handler:
        await handler()
        producing = handler.installed.handle
        assert isinstance(producing, KafkaHandler)
        before = await producing._connection.get()
        before._client_error(error(error._FATAL, "out of order", fatal=True))
        async with asyncio.timeout(10):
            while await producing._connection.get() is before:
                await asyncio.sleep(0)
        await handler("task-2")
        assert "out of order" in before._last_error
    assert len(await broker.events()) == 2


async def test_its_thread_ends_with_it() -> None:
    """F45: and what was not delivered is nobody's."""
    settings: dict[str, Any] = {"servers": "127.0.0.1:9"}
    async with Handler("kafka", settings) as handler:
        run = asyncio.ensure_future(handler())
        while not threads():
            await asyncio.sleep(0)
        await handler.close()
        run.cancel()
        await asyncio.wait({run})
    assert threads() == []


async def test_a_run_is_told_why_before_its_time_is_over() -> None:
    """F23: librdkafka gives a message up two seconds earlier, and has the reason."""
    async with Handler("kafka", {"servers": "127.0.0.1:9"}) as handler:
        with pytest.raises(Retry, match=r"Message timed out \(127.0.0.1:9/.*Connection refused"):
            await handler(seconds=3.5)
