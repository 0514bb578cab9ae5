"""The shortest durable way between two processes: a notification, and one row updated at it.

Prints the payload and the time (`time.monotonic`, which all processes of a machine share) after
the commit of each.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib import import_module


async def main(url: str, schema: str) -> None:
    connect = import_module("asyncpg").connect
    listening, taking = [await connect(url) for _ in range(2)]
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listening.add_listener(f"bare_{schema}", lambda *each: heard.put_nowait(each[3]))
    sys.stdout.write("ready\n")
    while True:
        sys.stdout.flush()
        name = await heard.get()
        await taking.execute(f"UPDATE {schema}.bare SET taken = true WHERE name = $1", name)
        sys.stdout.write(f"{name} {time.monotonic()}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
