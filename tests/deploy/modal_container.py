"""A process that calls `modal_app.py` as Modal's container does.

Reads and prints as `azure_host`; `{"timer": true}` is a run of the scheduled function.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from modal._runtime.asgi import asgi_app_wrapper
from modal._runtime.execution_context import _set_current_context_ids


async def main() -> None:
    """Call the functions until there is nothing more to call."""
    entry = import_module("modal_app")
    bodies: list[bytes] = []

    async def data_in(function_call_id: str, attempt_token: str) -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": bodies.pop(), "more_body": False}

    # Modal's servers send what a request brings; this stands in for them.
    manager = SimpleNamespace(get_data_in=SimpleNamespace(aio=data_in))
    call_app, wrapped = asgi_app_wrapper(entry.web.local(), manager)
    lifespan: Any = wrapped
    running = asyncio.create_task(lifespan.background_task())
    await lifespan.lifespan_startup()
    for line in sys.stdin:
        call: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {"status": 200, "body": ""}
        if "timer" in call:
            await asyncio.to_thread(entry.drain.local)
        else:
            bodies.append(base64.b64decode(call["body"]))
            _set_current_context_ids(["in-1"], ["fc-1"], ["token"])
            async for message in call_app(_scope(call)):
                if message["type"] == "http.response.start":
                    answer["status"] = message["status"]
                else:
                    answer["body"] += message.get("body", b"").decode()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await lifespan.lifespan_shutdown()
    await running


def _scope(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call["method"],
        "scheme": "https",
        "path": call["path"],
        "raw_path": call["path"].encode(),
        "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in call["headers"].items()
        ],
    }


asyncio.run(main())
