"""A process of its own that adds the same events as its siblings, then claims and settles some.

Prints one JSON object: the subjects it was told are new, and the keys it ran.
"""

from __future__ import annotations

import asyncio
import json
import sys

from receiver.event import Done
from receiver.stores.sqlite import SQLiteStore
from tests.support.events import LEASE, NOW, PLAN, event


async def main(path: str, owner: str, count: int) -> None:
    """Add, claim and settle."""
    store = SQLiteStore(path)
    await store.open()
    events = [event(f"task-{n}") for n in range(count)]
    receipts = await asyncio.gather(*(store.add(one, PLAN) for one in events))
    ran = []
    while claims := await store.claim(owner, {"keep": 7, "tell": 7}, LEASE, NOW):
        for found in claims:
            assert await store.settle(found.dispatch, owner, Done(owner), NOW)
            ran.append(found.dispatch.key)
    await store.close()
    json.dump({"new": [r.id for r in receipts if not r.duplicate], "ran": ran}, sys.stdout)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
