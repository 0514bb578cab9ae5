"""Errors as `application/problem+json` (RFC 9457), one shape for each status."""

from __future__ import annotations

import json
from asyncio import timeout
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from starlette.types import Receive, Scope, Send

LINE = "wavehook.line"
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
    request_id = scope[LINE]["request_id"]
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
