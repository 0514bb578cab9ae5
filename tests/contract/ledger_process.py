"""A process of its own with a ledger on a file; what it does is its first argument.

Prints one JSON value at its end, and a line "ready" where it waits for something.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from receiver.stores.sqlite import SQLiteStore
from submitter.ledger.base import IntentWritten, Ledger, Limits
from submitter.ledger.postgres import PostgresLedger
from submitter.ledger.sqlite import SQLiteLedger
from tests.support.events import PLAN, event
from tests.support.opening import opened
from tests.support.submissions import NOW, intent, result


def ledger_at(path: str) -> Ledger:
    """A ledger on a file, or in a schema of a database: `postgresql://…#schema`."""
    url, _, schema = path.partition("#")
    return PostgresLedger(url, schema=schema) if schema else SQLiteLedger(path)


async def intend(path: str, first: str, count: str) -> list[str]:
    """Intend the same keys as the siblings, all at once; tells which were fresh."""
    async with opened(ledger_at(path)) as ledger:
        keys = [f"k{(int(first) + n) % int(count)}" for n in range(int(count))]
        answers = await asyncio.gather(*(ledger.intend(intent(key), Limits(), NOW) for key in keys))
        return [key for key, answer in zip(keys, answers, strict=True) if is_fresh(answer)]


async def crowd(path: str, name: str, rate: str) -> int:
    """Intend many under limits; tells how many found room."""
    async with opened(ledger_at(path)) as ledger:
        limits = Limits(rate=int(rate), in_flight=int(rate))
        answers = await asyncio.gather(
            *(ledger.intend(intent(f"{name}-{n}"), limits, NOW + n / 100) for n in range(30))
        )
        return sum(map(is_fresh, answers))


async def take(path: str, _: str, count: str) -> list[str]:
    """Take what is due in small pieces, and finish it; tells which."""
    async with opened(ledger_at(path)) as ledger:
        taken = []
        while due := await ledger.due(NOW + 1e6, hold=1e6, limit=int(count)):
            taken += [entry.key for entry in due]
            await ledger.finish([result(f"t-{entry.key}", entry.key) for entry in due], NOW)
        return taken


async def beside_a_store(path: str, name: str, first: str) -> int:
    """Open ledger and store on one file, in this order or the other, and write into both."""
    store, ledger = SQLiteStore(Path(path)), SQLiteLedger(path)
    for part in (ledger, store) if first == "ledger" else (store, ledger):
        await part.open()
    for start in range(0, 60, 20):
        await asyncio.gather(
            *(store.add(event(f"{name}-{start + n}"), PLAN) for n in range(20)),
            *(ledger.intend(intent(f"{name}-{start + n}"), Limits(), NOW) for n in range(20)),
        )
    await ledger.close()
    await store.close()
    return 60


async def finish_when_told(path: str, key: str, _: str) -> str:
    """Finish an entry after a line on standard input."""
    async with opened(ledger_at(path)) as ledger:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        await ledger.finish([result("t1", key)], NOW)
        return key


def is_fresh(answer: object) -> bool:
    """Whether an intent was written."""
    return isinstance(answer, IntentWritten) and answer.fresh


JOBS = {job.__name__: job for job in (intend, crowd, take, beside_a_store, finish_when_told)}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(JOBS[sys.argv[1]](*sys.argv[2:]))))
