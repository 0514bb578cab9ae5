"""A process that calls `function_app.py` as the Functions host has its worker do.

Reads requests from standard input, a JSON object a line, and prints a JSON object for each: the
status and the body; `{"timer": true}` is a tick of the timer, which runs in a thread.
https://learn.microsoft.com/azure/azure-functions/functions-reference-python
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from importlib import import_module
from typing import Any

import azure.functions as func


async def main() -> None:
    """Call the functions until there is nothing more to call."""
    app = import_module("function_app").app
    functions = {each.get_trigger().type: each for each in app.get_functions()}
    receive = functions["httpTrigger"].get_user_function()
    tick = functions["timerTrigger"].get_user_function()
    for line in sys.stdin:
        call: dict[str, Any] = json.loads(line)
        if "timer" in call:
            await asyncio.to_thread(tick, timer=None)
            answer: dict[str, Any] = {"status": 200, "body": ""}
        else:
            request = func.HttpRequest(
                call["method"],
                f"https://wavehook.azurewebsites.net{call['path']}",
                headers=call["headers"],
                route_params={"route": call["path"].removeprefix("/")},
                body=base64.b64decode(call["body"]),
            )
            response = await receive(req=request, context=None)
            answer = {"status": response.status_code, "body": response.get_body().decode()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    # The app's own end waits for a loop that is gone by then; the host kills its worker.
    os._exit(0)


asyncio.run(main())
