"""Records submissions, several at once, and prints the key of each when its last step is confirmed.

Arguments: the file; `intended`, `accepted`, or `finished` to stop there after one, or `all` to go
on until it is killed; the number of the first key.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from submitter.ledger.base import Ledger, Limits
from submitter.ledger.sqlite import SQLiteLedger
from tests.support.submissions import NOW, intent, prediction, result

AT_ONCE = 8


async def record(ledger: Ledger, number: int, last: str) -> None:
    """One submission from its intent to its last step."""
    key, task_id = f"k{number}", f"t{number}"
    await ledger.intend(intent(key), Limits(), NOW)
    if last != "intended":
        await ledger.accept(key, prediction(task_id, "created"), NOW, expected_at=NOW)
    if last in ("finished", "all"):
        await ledger.finish([result(task_id)], NOW)
    sys.stdout.write(f"{key}\n")
    sys.stdout.flush()


async def main(path: str, last: str, first: str) -> None:
    """Record until killed."""
    ledger = SQLiteLedger(path)
    await ledger.open()
    if last != "all":
        await record(ledger, int(first), last)
        await asyncio.Event().wait()
    numbers = count(int(first))

    async def on_and_on() -> None:
        for number in numbers:
            await record(ledger, number, last)

    await asyncio.gather(*(on_and_on() for _ in range(AT_ONCE)))


asyncio.run(main(*sys.argv[1:]))
