"""A process of its own that works on a store, beside its siblings; its first argument says how.

Arguments: `add` or `claim_at_rate`, the place of the store (a file, or `postgresql://…#schema`),
the owner, and the number of events or the rate. Prints one JSON value at its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from receiver.event import Done
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SQLiteStore
from tests.support.events import LEASE, NOW, PLAN, event


async def add(store: Store, owner: str, count: str) -> dict[str, list[str]]:
    """Add the same events as the siblings, then claim and settle; the new ids and the keys run."""
    new, ran = [], []
    size = 20 if isinstance(store, PostgresStore) else int(count)
    for start in range(0, int(count), size):
        events = [event(f"task-{n}") for n in range(start, start + size)]
        receipts = await asyncio.gather(*(store.add(one, PLAN) for one in events))
        new += [receipt.id for receipt in receipts if not receipt.duplicate]
    while claims := await store.claim(owner, {"keep": 7, "tell": 7}, LEASE, NOW):
        for found in claims:
            assert await store.settle(found.dispatch, owner, Done(owner), NOW)
            ran.append(found.dispatch.key)
    return {"new": new, "ran": ran}


async def claim_at_rate(store: Store, owner: str, rate: str) -> int:
    """After a line on standard input, claim until all is handled; how many it was given."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    count = 0
    while await store.next_due(["keep"]) is not None:
        found = await store.claim(owner, {"keep": 9}, LEASE, time.time(), {"keep": float(rate)})
        for each in found:
            await store.settle(each.dispatch, owner, Done(), time.time())
        count += len(found)
    return count


async def main(job: str, place: str, *words: str) -> Any:
    """Open the store, work on it, close it."""
    url, _, schema = place.partition("#")
    store: Store = PostgresStore(url, schema=schema) if schema else SQLiteStore(place)
    if schema and job == "claim_at_rate":
        store = PostgresStore(url, schema=schema, clock="server")
    await store.open()
    try:
        return await {"add": add, "claim_at_rate": claim_at_rate}[job](store, *words)
    finally:
        await store.close()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))))
