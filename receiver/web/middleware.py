"""The outermost layer: a request id, one log line a request, and an answer whatever happens.

Errors as `application/problem+json` (RFC 9457), one shape for each status.
"""

from __future__ import annotations

import json
import random
from asyncio import timeout
from collections.abc import Iterable, Mapping
from contextlib import suppress
from logging import INFO, WARNING
from time import perf_counter
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.telemetry.log import RequestLog, logger

LOG_FIELDS_KEY = "wavehook.line"
"""Where a request's scope holds the fields of its log line; `request_id` is always there."""

LINGER = 2.0
"""Seconds for a sender to finish a body that nobody wants, after its answer."""

_TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "bad-request",
        401: "unverified",
        404: "not-found",
        405: "method-not-allowed",
        408: "body-too-slow",
        413: "body-too-large",
        415: "body-encoded",
        500: "internal",
        503: "unavailable",
    }
)
_CONTENT_TYPE = (b"content-type", b"application/problem+json")


async def send_problem(
    scope: Scope,
    send: Send,
    status: int,
    title: str,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    close: bool = False,
    unread: Receive | None = None,
) -> None:
    """Answer with an error.

    Args:
        scope: of the request, under `Requests`.
        send: of the request.
        status: of HTTP.
        title: what a person reads; the same for every error of its kind.
        headers: more of them, such as Retry-After.
        close: end the connection, because the body was not read to its end.
        unread: gives the rest of the body, to be read and forgotten before the end.
    """
    type = f"urn:wavehook:problem:{_TYPES[status]}" if status in _TYPES else "about:blank"
    request_id = scope[LOG_FIELDS_KEY]["request_id"]
    body = json.dumps(
        {"type": type, "title": title, "status": status, "request_id": request_id}
    ).encode()
    sent = [_CONTENT_TYPE, (b"content-length", b"%d" % len(body)), *headers]
    # HTTP/2 has no such header, and servers fail on it.
    if close and scope.get("http_version", "1.1").startswith("1"):
        sent.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    if unread is None:
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(unread)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    """Read on for a moment (RFC 9112, section 9.6).

    To close a connection with bytes unread is to reset it, and a sender that is still writing
    would never see its answer.
    """
    with suppress(TimeoutError):
        async with timeout(LINGER):
            more = True
            while more:
                message = await receive()
                more = message["type"] == "http.request" and message.get("more_body", False)


MAX_REQUEST_ID = 64
"""The longest X-Request-ID that is taken over."""


class Requests:
    """Pure ASGI around the whole app.

    An endpoint adds fields to its request's log line through `scope[LOG_FIELDS_KEY]`. The line
    names the route's template and never the path, which may hold a token, nor the query.
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
        scope[LOG_FIELDS_KEY] = line
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
