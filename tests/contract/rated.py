"""A process of its own that claims at a rate, by its own clock, until all is handled.

Waits for a line on standard input, so that all begin at once; prints how many it was given.
"""

from __future__ import annotations

import asyncio
import sys
import time

from receiver.event import Done
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SQLiteStore
from tests.support.events import LEASE


async def main(place: str, schema: str, owner: str, rate: float) -> None:
    """Claim and settle."""
    store: Store = SQLiteStore(place)
    if schema:
        store = PostgresStore(place, schema=schema, clock="server")
    await store.open()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    count = 0
    while await store.next_due(["keep"]) is not None:
        found = await store.claim(owner, {"keep": 9}, LEASE, time.time(), {"keep": rate})
        for each in found:
            await store.settle(each.dispatch, owner, Done(), time.time())
        count += len(found)
    await store.close()
    sys.stdout.write(str(count))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
