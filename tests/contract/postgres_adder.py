"""A process of its own that adds the same events as its siblings, then claims and settles some.

Prints one JSON object: the subjects it was told are new, and the keys it ran.
"""

from __future__ import annotations

import asyncio
import json
import sys

from receiver.event import Done
from receiver.stores.postgres import PostgresStore
from tests.support.events import LEASE, NOW, PLAN, event


async def main(url: str, schema: str, owner: str, count: int) -> None:
    """Add, claim and settle."""
    store = PostgresStore(url, schema=schema)
    await store.open()
    ran = []
    new = []
    for start in range(0, count, 20):
        events = [event(f"task-{n}") for n in range(start, start + 20)]
        receipts = await asyncio.gather(*(store.add(one, PLAN) for one in events))
        new += [receipt.id for receipt in receipts if not receipt.duplicate]
    while claims := await store.claim(owner, {"keep": 7, "tell": 7}, LEASE, NOW):
        for found in claims:
            assert await store.settle(found.dispatch, owner, Done(owner), NOW)
            ran.append(found.dispatch.key)
    await store.close()
    json.dump({"new": new, "ran": ran}, sys.stdout)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
