"""The outermost layer: a request id, one log line a request, and an answer whatever happens."""

from __future__ import annotations

import random
from logging import INFO, WARNING
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.telemetry.log import RequestLog, logger
from receiver.web.problem import LINE, send_problem

MAX_REQUEST_ID = 64
"""The longest X-Request-ID that is taken over."""


class Requests:
    """Pure ASGI around the whole app.

    An endpoint adds to its request's line by putting fields into `scope[LINE]`. The line names the
    route's template and never the path, which may hold a token, nor the query.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = logger()
        self._line = RequestLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        header = (b"x-request-id", request_id.encode())
        line: dict[str, Any] = {"request_id": request_id}
        scope[LINE] = line
        status = size = 0
        gone = False

        async def reply(message: Message) -> None:
            nonlocal status, size, gone
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            else:
                size += len(message.get("body", b""))
            try:
                await send(message)
            except OSError:
                # The ASGI way to say that the client has left.
                gone = True
                raise

        try:
            await self._app(scope, receive, reply)
        except HTTPException as error:
            if status:
                self._failed(error, line)
            else:
                await _answer(error, scope, reply)
        except Exception as error:  # noqa: BLE001 - nothing may reach the server's own 500
            if not gone:
                self._failed(error, line)
            if not status:
                title = "The server failed; it is in its log under the request id"
                await send_problem(scope, reply, 500, title, close=True)
        finally:
            route = getattr(scope.get("route"), "path", None)
            line["method"] = scope["method"][:16]
            line["route"] = route
            line["status"] = status or None
            line["ms"] = round((perf_counter() - started) * 1000, 3)
            line["bytes"] = size
            self._line(INFO if status < 500 else WARNING, line)

    def _failed(self, error: Exception, line: dict[str, Any]) -> None:
        self._log.error("request.failed", request_id=line["request_id"], exc_info=error)


async def _answer(error: HTTPException, scope: Scope, send: Send) -> None:
    headers = [
        (name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()
    ]
    # Whoever refuses a request has not read its body.
    close = scope["method"] not in {"GET", "HEAD"}
    await send_problem(scope, send, error.status_code, error.detail, headers=headers, close=close)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if 0 < len(value) <= MAX_REQUEST_ID and value.isascii():
                text: str = value.decode()
                if text.isprintable():
                    return text
            break
    # It names a request and guards nothing, and is much cheaper than a UUID.
    return f"{random.getrandbits(64):016x}"
