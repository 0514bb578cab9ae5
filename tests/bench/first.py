"""A process from its first import to what it is for, as a serverless platform waits for it.

`five` imports the five fixed packages; `ours` imports and builds the receiver by its settings, and
answers one signed webhook without lifespan. Prints the seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from tests.bench.load import requests

PATH = "/webhooks/wavespeed"


def delivery() -> tuple[dict[str, Any], bytes]:
    """The scope and the body of one signed webhook."""
    head, body = requests(PATH, 1, 1, int.from_bytes(os.urandom(4)))[0].split(b"\r\n\r\n", 1)
    headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[1:]]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    return scope, body


def five() -> None:
    import cryptography.fernet
    import httpx
    import starlette.applications
    import structlog
    import uvicorn

    del cryptography, httpx, starlette, structlog, uvicorn


async def ours(scope: dict[str, Any], body: bytes) -> int:
    """The status of the answer."""
    from receiver.web.asgi import app

    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    await app(scope, receive, send)
    return int(statuses[0])


def main(what: str) -> None:
    scope, body = delivery()
    started = time.perf_counter()
    if what == "five":
        five()
    else:
        status = asyncio.run(ours(scope, body))
        assert status == 202, status
    sys.stdout.write(f"\n{time.perf_counter() - started}\n")
    sys.stdout.flush()
    # The platform freezes it now.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
