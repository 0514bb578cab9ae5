"""What a million stored events cost: `pytest -m bench -s -n0 tests/bench/test_growth.py`."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from pathlib import Path

import pytest

from receiver.event import Done, Event
from receiver.stores.sqlite import SQLiteStore
from tests.bench.servers import ROUNDS, SEED, serve

pytestmark = pytest.mark.bench

PLAN = {"first": (), "second": ()}
BODY = b'{"status":"completed","padding":"%b"}' % (b"x" * 650)


def event(number: int) -> Event:
    task = hashlib.sha256(b"%d/%d" % (SEED, number)).hexdigest()[:32]
    return Event(
        id=f"wavespeed:{task}:completed",
        source="wavespeed",
        type="prediction.completed",
        subject=task,
        model="kwaivgi/kling-v2.1-i2v-standard",
        body=BODY,
        webhook_id=task,
        occurred_at=1.0,
        received_at=1.0,
    )


async def add(store: SQLiteStore, first: int, count: int) -> float:
    """Store events from 64 tasks at once; seconds of one."""
    numbers = iter(range(first, first + count))

    async def sender() -> None:
        for number in numbers:
            await store.add(event(number), PLAN)

    started = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(64)))
    return (time.perf_counter() - started) / count


async def claim(store: SQLiteStore, count: int) -> float:
    """Claim and settle, 64 at once; seconds of one."""
    done = 0
    started = time.perf_counter()
    while done < count:
        claims = await store.claim("bench", {"first": 32, "second": 32}, 60, time.time())
        assert claims, "the backlog is too short"
        await asyncio.gather(
            *(store.settle(each.dispatch, "bench", Done(), 2.0) for each in claims)
        )
        done += len(claims)
    return (time.perf_counter() - started) / done


async def filled(path: Path, count: int) -> SQLiteStore:
    """A store with so many handled events, whose WAL is empty."""
    store = SQLiteStore(path)
    await store.open()
    await add(store, 0, count)
    connection = store._database.connect()
    connection.execute("UPDATE dispatch SET state = 'done', settled_at = 2.0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return store


def shown(name: str, ratios: list[float]) -> float:
    middle = statistics.median(ratios)
    print(f"\n{name}: {middle:.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
    return middle


async def test_a_million_stored_events(tmp_path: Path) -> None:
    """Ack and claim with 1,000,000 stored events against 1,000: at most 1.2 times."""
    paths = [tmp_path / "large.db", tmp_path / "small.db"]
    for path, count in zip(paths, (1_000_000, 1_000), strict=True):
        await (await filled(path, count)).close()

    acks = []
    urls = [f"sqlite:///{path}" for path in paths]
    with serve(tmp_path, database=urls[0]) as large, serve(tmp_path, database=urls[1]) as small:
        small.load(SEED - 1, count=5000), large.load(SEED - 1, count=5000)
        for number in range(ROUNDS):
            rates = [
                server.load(SEED + 3 * number + part, count=10_000)["rate"]
                for part, server in enumerate((small, large, small))
            ]
            acks.append((rates[0] + rates[2]) / 2 / rates[1])
    assert shown("ack", acks) <= 1.2

    stores = [SQLiteStore(path) for path in paths]
    for store in stores:
        await store.open()
    big, little = stores
    claims = []
    for _ in range(ROUNDS):
        taken = [await claim(store, 2000) for store in (little, big, little)]
        claims.append(taken[1] / ((taken[0] + taken[2]) / 2))
    for store in stores:
        await store.close()
    assert shown("claim and settle", claims) <= 1.2
