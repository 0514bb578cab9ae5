"""A real HTTP server on this machine that stands in for a chat service and for the API's files.

Slack, Discord, Teams and Telegram cannot be reached from a test. This answers as they do, in
status, headers and bodies, and keeps what it was sent, byte by byte.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

MP4 = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 64
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


@dataclass(frozen=True)
class Request:
    """What the service was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def name(self) -> str:
        """The last part of the path."""
        return urlsplit(self.path).path.rpartition("/")[2]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return {name: value for name, [value] in parse_qs(self.body.decode()).items()}

    @property
    def parts(self) -> dict[str, tuple[str | None, str, bytes]]:
        """The fields of a form with files: file name, content type, content."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        found = message_from_bytes(head + self.body, policy=HTTP)
        return {
            str(part.get_param("name", header="content-disposition")): (
                part.get_filename(),
                part.get_content_type(),
                cast("bytes", part.get_payload(decode=True)),
            )
            for part in found.iter_parts()
        }


@dataclass(frozen=True)
class Answer:
    """What the service says, and whether the connection ends there."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    ends: bool = False

    @property
    def raw(self) -> bytes:
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"content-length": str(len(data)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + data


Says = Callable[[Request], Answer | None]


class Service:
    """Answers by what it was told last for a name (the last part of the path), else by `says`."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.told: dict[str, list[Answer | None]] = {}
        self.requests: list[Request] = []
        self.files = {"video.mp4": MP4, "0.png": PNG, "1.png": PNG}
        self.url = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def named(self, name: str) -> list[Request]:
        """Requests to this name, in order."""
        return [each for each in self.requests if each.name == name]

    @property
    def names(self) -> list[str]:
        """The names that were called, but for the files."""
        return [each.name for each in self.requests if each.name not in self.files]

    def answer(self, request: Request) -> Answer | None:
        self.requests.append(request)
        waiting = self.told.get(request.name)
        if waiting:
            return waiting.pop(0)
        if request.method == "GET" and request.name in self.files:
            return Answer(200, self.files[request.name])
        return self.says(request)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.rstrip("\r\n").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer = self.answer(Request(method, path, headers, body))
                if answer is None:
                    break
                writer.write(answer.raw)
                await writer.drain()
                if answer.ends:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def serving(says: Says) -> AsyncIterator[Service]:
    """The service, on a free port."""
    made = Service(says)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
