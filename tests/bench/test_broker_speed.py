"""Events into NATS and Redis: `pytest -m bench -s -n0 tests/bench/test_broker_speed.py`.

The handler against the bare client that waits for the same confirmations, with as many runs at
once, in turns within one process; what the bare client sends is made beforehand.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import CloudEventEncoder, CloudEventSettings
from receiver.handlers.loading import load_section
from tests.support import needed
from tests.support.broker_streams import Nats, Redis

pytestmark = pytest.mark.bench

COUNT = 1500
AT_ONCE = 64
ROUNDS = 21
Send = Callable[[Event, Context], Awaitable[object]]


def events(seed: int) -> list[tuple[Event, Context]]:
    """Completed predictions of about 600 bytes each, as they come from a store: not yet read."""
    made = []
    for number in range(COUNT):
        task = f"{seed:08x}{number:024x}"
        body = {
            "id": task,
            "model": "kwaivgi/kling-v2.1-i2v-standard",
            "input": {"prompt": "a lighthouse at dusk, slow dolly in, " * 4, "duration": 5},
            "outputs": [f"https://cdn.example.com/out/{task}.mp4"],
            "urls": {"get": f"https://api.wavespeed.ai/api/v3/predictions/{task}/result"},
            "has_nsfw_contents": [False],
            "status": "completed",
            "created_at": "2026-03-01T09:12:48.239112031Z",
            "timings": {"inference": 61234},
        }
        event = Event(
            id=f"wavespeed:{task}:completed",
            source="wavespeed",
            type="prediction.completed",
            subject=task,
            model="kwaivgi/kling-v2.1-i2v-standard",
            body=json.dumps(body).encode(),
            received_at=time.time(),
        )
        made.append((event, Context(f"{event.id}/pipe", "pipe", 1, time.time() + 300)))
    return made


async def rate(send: Send, made: list[tuple[Event, Context]]) -> float:
    """Events a second."""

    async def work() -> None:
        # As with the dispatcher, nobody holds an event any more that was sent.
        while made:
            await send(*made.pop())

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return COUNT / (time.perf_counter() - began)


@asynccontextmanager
async def nats_alone(broker: Nats, bodies: dict[str, bytes]) -> AsyncIterator[Send]:
    client = await needed.module("nats").connect(broker.url)
    stream = client.jetstream()

    async def send(event: Event, context: Context) -> Any:
        headers = {"Nats-Msg-Id": context.key + "-bare", "content-type": "application/json"}
        return await stream.publish(broker.subject, bodies[event.id], headers=headers)

    yield send
    await client.close()


@asynccontextmanager
async def redis_alone(broker: Redis, bodies: dict[str, bytes]) -> AsyncIterator[Send]:
    async with needed.module("redis.asyncio").from_url(broker.url) as client:

        async def send(event: Event, _: Context) -> Any:
            return await client.xadd(broker.name, {"event": bodies[event.id]})

        yield send


@pytest.mark.parametrize(("place", "alone"), [(Nats, nats_alone), (Redis, redis_alone)])
async def test_events_a_second(place: Any, alone: Any) -> None:
    """At least 0.7 of the bare client: an event is read, made a CloudEvent and confirmed."""
    broker = place()
    await broker.make()
    handler = load_section("pipe", {"use": broker.use, **broker.settings(), "mode": "structured"})
    envelopes = CloudEventEncoder(CloudEventSettings())

    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(ROUNDS):
        bodies = {event.id: envelopes.message(event).body for event, _ in events(number)}
        async with alone(broker, bodies) as bare:
            rates["bare"].append(await rate(bare, events(number)))
        rates["ours"].append(await rate(handler.handle, events(number)))
    assert handler.close is not None
    await handler.close()
    await broker.remove()
    ratios = [one / other for one, other in zip(rates["ours"], rates["bare"], strict=True)]
    print(
        f"\n{broker.use}: {statistics.median(ratios):.2f} of the bare client "
        f"({min(ratios):.2f} to {max(ratios):.2f}): {statistics.median(rates['ours']):,.0f} "
        f"against {statistics.median(rates['bare']):,.0f} events a second"
    )
    assert statistics.median(ratios) > 0.7
