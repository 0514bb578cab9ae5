"""A submission goes out once: counted by a real server that behaves badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from submitter.client import WaveSpeed
from submitter.errors import (
    ApiError,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)

pytestmark = pytest.mark.anyio

TASK = json.dumps({"code": 200, "data": {"id": "t1", "status": "created"}}).encode()

Misbehaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads requests whole, counts them, and answers each as it is told."""

    def __init__(self, behave: Misbehaviour) -> None:
        self.behave = behave
        self.requests: list[tuple[str, bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.lower().split("\r\n")
                length = [int(line[15:]) for line in lines if line.startswith("content-length:")]
                body = await reader.readexactly(sum(length))
                self.requests.append((head.split("\r\n", maxsplit=1)[0], body))
                await self.behave(writer)
                if writer.is_closing():
                    break
        writer.close()


@contextlib.asynccontextmanager
async def serving(behave: Misbehaviour) -> AsyncIterator[Server]:
    server = Server(behave)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


def answering(status: str, body: bytes = b"{}", headers: str = "") -> Misbehaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return behave


async def closing(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resetting(writer: asyncio.StreamWriter) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def cutting(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + TASK)
    await writer.drain()
    writer.close()


async def babbling(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SECRET this is no HTTP\r\n\r\n")
    await writer.drain()
    writer.close()


async def hanging(writer: asyncio.StreamWriter) -> None:
    await writer.drain()


async def stopping_midway(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
    await writer.drain()


class Hasty(httpx.AsyncBaseTransport):
    """The real transport, with less patience."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), 0.1)
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def submit(server: Server, **input: Any) -> None:
    async with WaveSpeed(
        "key", server.url, webhook_url="https://hooks.example.com", transport=Hasty()
    ) as wave:
        await wave.submit("vendor/model", input or {"prompt": "x"})


@pytest.mark.parametrize(
    "behave",
    [
        closing,
        resetting,
        cutting,
        babbling,
        hanging,
        stopping_midway,
        answering("500 Oops"),
        answering("502 Bad Gateway", b"<html>"),
        answering("503 Busy"),
        answering("504 Late"),
        answering("200 OK", b"<html>"),
        answering("200 OK", b'{"code":500}'),
        answering("200 OK", b"\x1f\x8bno gzip", "content-encoding: gzip\r\n"),
    ],
    ids=range(13),
)
async def test_a_submission_with_a_lost_answer_is_sent_once(behave: Misbehaviour) -> None:
    """F32: however the answer is lost, the server has seen one POST, and nobody is told lies."""
    async with serving(behave) as server:
        with pytest.raises(SubmissionUnknown) as caught:
            await submit(server)
    assert len(server.requests) == 1
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (answering("429 Too Many", b"{}", "retry-after: 3\r\n"), RateLimited),
        (answering("404 Not Found", b"<html>"), NotFound),
        (answering("400 Bad", b'{"error":"x"}'), ApiError),
        (answering("307 Moved", b"", "location: /again\r\n"), ApiError),
        (answering("302 Moved", b"", "location: /again\r\n"), ApiError),
    ],
    ids=range(5),
)
async def test_a_refused_submission_is_sent_once(
    behave: Misbehaviour, kind: type[SubmitterError]
) -> None:
    """F32: a refusal, a 429 or a redirect does not send the submission again either."""
    async with serving(behave) as server:
        with pytest.raises(kind):
            await submit(server)
    assert len(server.requests) == 1


async def test_the_request_as_the_server_sees_it() -> None:
    """The model's slashes are plain and the webhook is percent-encoded on the wire."""
    async with serving(answering("200 OK", TASK)) as server:
        await submit(server, prompt="ü")
    line, body = server.requests[0]
    webhook = "https%3A%2F%2Fhooks.example.com%2Fwebhooks%2Fwavespeed"
    assert line == f"POST /api/v3/vendor/model?webhook={webhook} HTTP/1.1"
    assert json.loads(body) == {"prompt": "ü"}


async def test_where_nobody_listens_nothing_was_sent() -> None:
    """A refused connection is no unknown submission."""
    async with serving(closing) as server:
        pass
    with pytest.raises(Unavailable, match="nothing was created"):
        await submit(server)
    assert server.requests == []


async def test_a_question_is_asked_again() -> None:
    """A question whose answer was lost is asked again, on a new connection."""
    behaviours = [closing, cutting, answering("503 Busy"), answering("200 OK", TASK)]

    async def behave(writer: asyncio.StreamWriter) -> None:
        await behaviours.pop(0)(writer)

    async with serving(behave) as server, WaveSpeed("key", server.url, transport=Hasty()) as wave:
        assert (await wave.result("t1")).id == "t1"
    assert len(server.requests) == 4
