"""The dispatcher: `pytest -m bench -s -n0 tests/bench/test_dispatch_speed.py`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.event import Event
from receiver.handlers.base import Context, Installed
from receiver.handlers.routing import Route
from receiver.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.bench

COUNT = 20_000
IDLE = 500


def event(name: str) -> Event:
    return Event(
        id=f"wavespeed:{name}:completed",
        source="wavespeed",
        type="prediction.completed",
        body=b"{}",
        received_at=time.time(),
    )


async def test_events_a_second_and_the_way_to_a_handler(tmp_path: Path) -> None:
    """One handler that does nothing: all of a backlog, then one event at a time."""
    store = SQLiteStore(tmp_path / "bench.db")
    await store.open()
    started: dict[str, float] = {}

    async def note(event: Event, context: Context) -> None:
        started[event.id] = time.perf_counter()

    dispatcher = Dispatcher(store, [Installed(Route("note"), note)], owner="bench")
    await asyncio.gather(*(store.add(event(str(n)), {"note": ()}) for n in range(COUNT)))
    began = time.perf_counter()
    assert await dispatcher.drain() == COUNT
    print(f"\n{COUNT / (time.perf_counter() - began):,.0f} events a second through one handler")

    await dispatcher.start()
    waits = []
    for number in range(IDLE):
        one = event(f"idle-{number}")
        await store.add(one, {"note": ()})
        committed = time.perf_counter()
        async with asyncio.timeout(5):
            while one.id not in started:
                await asyncio.sleep(0.002)
        waits.append(started[one.id] - committed)
    await dispatcher.stop(1)
    await store.close()
    waits.sort()
    p50, p99 = waits[IDLE // 2], waits[IDLE * 99 // 100]
    print(f"commit to handler start, idle: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")
    assert len(started) == COUNT + IDLE
