"""Starts and stops a receiver in one process again and again; prints what it holds after each."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path

import httpx

from receiver.build import build
from receiver.config import read
from tests.crash.receiving import webhook


async def cycle(subject: str) -> None:
    """Start, take one event in, have it handled, stop."""
    settings = read(os.environ, cwd=Path.cwd()).settings
    parts = build(settings, hooks=())
    async with parts.app.router.lifespan_context(parts.app):
        transport = httpx.ASGITransport(parts.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body, headers = webhook(subject)
            answer = await client.post("/webhooks/wavespeed", content=body, headers=headers)
            assert answer.status_code == 202
        while (await parts.store.stats()).depth:
            await asyncio.sleep(0.001)


def main(rounds: int) -> None:
    """One event loop a round, as a process would have."""
    for n in range(rounds):
        asyncio.run(cycle(f"task-{n}"))
        gc.collect()
        held = {
            "fds": len(list(Path("/dev/fd").iterdir())),
            "threads": threading.active_count(),
            "blocks": sys.getallocatedblocks(),
        }
        sys.stderr.write(json.dumps({"event": "cycle", **held}) + "\n")


main(int(sys.argv[1]))
