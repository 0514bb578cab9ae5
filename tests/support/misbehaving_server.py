"""A real server that reads requests whole, keeps them, and answers each as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

Misbehaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Behaves in turn, the last way for ever."""

    def __init__(self, *ways: Misbehaviour) -> None:
        self.ways = list(ways)
        self.received: list[Received] = []
        self.url = ""
        self.came = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.rstrip("\r\n").split("\r\n")
                pairs = [line.split(": ", 1) for line in lines]
                headers = [(name, value) for name, value in pairs]
                length = [int(value) for name, value in headers if name == "content-length"]
                body = await reader.readexactly(sum(length))
                method, target, _ = first.split(" ")
                self.received.append(Received(method, target, headers, body))
                self.came.set()
                way = self.ways.pop(0) if len(self.ways) > 1 else self.ways[0]
                await way(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(*ways: Misbehaviour) -> AsyncIterator[Server]:
    server = Server(*ways)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, limit=2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


def answering(status: str = "200 OK", body: Any = b"{}", headers: str = "") -> Misbehaviour:
    """A whole answer; a body that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{headers}\r\n"
        writer.write(head.encode() + content)
        await writer.drain()

    return behave


def good(data: Any) -> Misbehaviour:
    """The envelope of every answer that is no error."""
    return answering(body={"code": 200, "message": "success", "data": data})


def saying(content: bytes) -> Misbehaviour:
    """These bytes and the end of the connection."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.close()

    return behave


async def resetting(writer: asyncio.StreamWriter) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def hanging(writer: asyncio.StreamWriter) -> None:
    """Nothing, for ever."""


async def stopping_midway(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
    await writer.drain()


async def dripping(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter) -> None:
    """As much as the other side takes."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b" " * 2**20)
            await writer.drain()
