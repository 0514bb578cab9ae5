"""The outermost middleware: a request id, one log line a request, and a response to every error.

Errors are `application/problem+json` (RFC 9457), one shape for each status.
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
"""Key of a request's scope that holds the fields of its log line, `request_id` among them."""

MAX_REQUEST_ID_LENGTH = 64
"""Characters of the longest X-Request-ID that is adopted."""

LINGER_S = 2.0
"""Seconds for a sender to finish a body that is not wanted, after the response."""

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


class RequestMiddleware:
    """Pure ASGI middleware around the whole app.

    An endpoint adds fields to its request's log line through `scope[LOG_FIELDS_KEY]`. The line
    names the route's template and never the path, which may hold a token, nor the query.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = logger()
        self._request_log = RequestLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        header = (b"x-request-id", request_id.encode())
        fields: dict[str, Any] = {"request_id": request_id}
        scope[LOG_FIELDS_KEY] = fields
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
                # In ASGI, an OSError from `send` means that the client disconnected.
                gone = True
                raise

        try:
            await self._app(scope, receive, reply)
        except HTTPException as error:
            if status:
                self._failed(error, fields)
            else:
                await _send_http_exception(error, scope, reply)
        except Exception as error:  # noqa: BLE001 - the server would send its own 500
            if not gone:
                self._failed(error, fields)
            if not status:
                title = "The server failed; its log has the error under this request id"
                await send_problem(scope, reply, 500, title, close=True)
        finally:
            route = getattr(scope.get("route"), "path", None)
            fields["method"] = scope["method"][:16]
            fields["route"] = route
            fields["status"] = status or None
            fields["ms"] = round((perf_counter() - started) * 1000, 3)
            fields["bytes"] = size
            self._request_log(INFO if status < 500 else WARNING, fields)

    def _failed(self, error: Exception, fields: dict[str, Any]) -> None:
        self._log.error("request.failed", request_id=fields["request_id"], exc_info=error)


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
    """Send an error as `application/problem+json`.

    Args:
        scope: of a request inside `RequestMiddleware`.
        send: of the same request.
        status: the HTTP status.
        title: text for a person; the same for every error of one kind.
        headers: additional headers, such as Retry-After.
        close: close the connection, because the body was not read to its end.
        unread: receives the rest of the body, to read and discard it before the end.
    """
    type = f"urn:wavehook:problem:{_TYPES[status]}" if status in _TYPES else "about:blank"
    request_id = scope[LOG_FIELDS_KEY]["request_id"]
    body = json.dumps(
        {"type": type, "title": title, "status": status, "request_id": request_id}
    ).encode()
    sent = [_CONTENT_TYPE, (b"content-length", b"%d" % len(body)), *headers]
    # HTTP/2 does not allow this header, and servers fail on it.
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
    """Read the rest of a body for a moment (RFC 9112, section 9.6).

    Closing a connection with unread bytes resets it, and a sender that is still writing would
    never see the response.
    """
    with suppress(TimeoutError):
        async with timeout(LINGER_S):
            more = True
            while more:
                message = await receive()
                more = message["type"] == "http.request" and message.get("more_body", False)


async def _send_http_exception(error: HTTPException, scope: Scope, send: Send) -> None:
    headers = [
        (name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()
    ]
    # The body of a refused request was not read.
    close = scope["method"] not in {"GET", "HEAD"}
    await send_problem(scope, send, error.status_code, error.detail, headers=headers, close=close)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if 0 < len(value) <= MAX_REQUEST_ID_LENGTH and value.isascii():
                text: str = value.decode()
                if text.isprintable():
                    return text
            break
    # An identifier, not a secret; `uuid4` costs 4 µs more.
    return f"{random.getrandbits(64):016x}"
