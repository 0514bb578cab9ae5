"""What a million stored events cost on PostgreSQL.

`pytest -m bench -s -n0 tests/bench/test_postgres_growth.py`; filling takes a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from receiver.event import Done
from receiver.stores.postgres import PostgresStore
from tests.bench.postgres import Database, database
from tests.bench.servers import ROUNDS, SEED
from tests.bench.test_growth import shown

pytestmark = pytest.mark.bench

CHUNK = 50_000
FILL = """
INSERT INTO event (seq, id, source, type, subject, model, body, origin, webhook_id,
                   occurred_at, received_at)
SELECT n, 'wavespeed:' || task || ':completed', 'wavespeed', 'prediction.completed', task,
       'kwaivgi/kling-v2.1-i2v-standard', decode(repeat('78', 690), 'hex'), 'webhook', task, 1, 1
  FROM (SELECT n, md5(n::TEXT) AS task FROM generate_series({first}, {last}) AS n) AS made;
INSERT INTO dispatch (event, handler, state, attempt, tries, due_at, settled_at)
SELECT n, name, 'done', 1, 1, 1, 2
  FROM generate_series({first}, {last}) AS n, unnest(ARRAY['first', 'second']) AS name;
INSERT INTO attempt (event, handler, number, owner, started_at, ended_at, outcome)
SELECT n, name, 1, 'bench', 1, 2, 'done'
  FROM generate_series({first}, {last}) AS n, unnest(ARRAY['first', 'second']) AS name;
"""


def fill(found: Database, count: int) -> None:
    """Make the tables, with so many handled events in them, and what PostgreSQL knows of them."""

    async def make() -> None:
        store = PostgresStore(found.url, schema=found.schema)
        await store.open()
        await store.close()

    asyncio.run(make())
    for first in range(1, count + 1, CHUNK):
        found.execute(FILL.format(first=first, last=min(first + CHUNK - 1, count)))
    for table in ("event", "dispatch", "attempt"):
        found.execute(f"VACUUM (ANALYZE) {table}")


async def claims(store: PostgresStore, count: int) -> float:
    """Claim and settle, 64 at once; seconds of one."""
    done = 0
    started = time.perf_counter()
    while done < count:
        found = await store.claim("bench", {"first": 32, "second": 32}, 60, time.time())
        assert found, "the backlog is too short"
        await asyncio.gather(
            *(store.settle(each.dispatch, "bench", Done(), time.time()) for each in found)
        )
        done += len(found)
    return (time.perf_counter() - started) / done


async def handled(big: Database, small: Database) -> list[float]:
    """Claims and settles of the backlog that the acks have left, each between two of the other."""
    stores = [
        PostgresStore(each.url, schema=each.schema, clock="server") for each in (small, big, small)
    ]
    for store in stores:
        await store.open()
    ratios = []
    for _ in range(ROUNDS):
        before, large, after = [await claims(store, 1000) for store in stores]
        ratios.append(large / ((before + after) / 2))
    for store in stores:
        await store.close()
    return ratios


def test_a_million_stored_events(tmp_path: Path) -> None:
    """Ack, claim and settle with 1,000,000 stored events against 1,000: at most 1.2 times."""
    with contextlib.ExitStack() as stack:
        big, small = (stack.enter_context(database()) for _ in range(2))
        fill(big, 1_000_000)
        fill(small, 1_000)
        acks = []
        with big.serve(tmp_path) as large, small.serve(tmp_path) as little:
            for warm in (large, little):
                warm.load(SEED - 1, count=2000)
            for number in range(ROUNDS):
                rates = [
                    server.load(SEED + 3 * number + part, count=4000)["rate"]
                    for part, server in enumerate((little, large, little))
                ]
                acks.append((rates[0] + rates[2]) / 2 / rates[1])
        ack = shown("ack", acks)
        settled = shown("claim and settle", asyncio.run(handled(big, small)))
    assert ack <= 1.2
    assert settled <= 1.2
