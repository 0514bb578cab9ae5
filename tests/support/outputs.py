"""Outputs of predictions on a real server, and archives that keep them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from receiver.event import Event
from receiver.handlers.archive.disk import DiskStorage
from receiver.handlers.archive.handler import Archive, ArchiveSettings
from receiver.handlers.base import Context
from submitter.simulator.media import mp4, png
from tests.support.misbehaving_server import Misbehaviour, Received, Server, serving

NOW = 1_800_000_000.0
"""Friday, 15 January 2027, 08:00 UTC."""

ID = "wavespeed:task-1:completed"
MP4, PNG = mp4(), png()
LARGE = MP4[:32] + b"\0\x30\0\x08free" + bytes(range(256)) * 12288 + MP4[32:]
"""A video of 3 MiB: so many bytes of a box that players pass over stand in it."""


class File:
    """A file that is given out in ranges; its connections break where it is told.

    Args:
        data: the file.
        breaks: bytes of the body after which the connection of each request breaks, in turn.
        etag: of the file; None: it has none, and no ranges are given.
        length: whether its length is said before.
    """

    def __init__(
        self,
        data: bytes = MP4,
        breaks: Sequence[int] = (),
        etag: str | None = '"v1"',
        *,
        length: bool = True,
    ) -> None:
        self.data = data
        self.etag = etag
        self.length = length
        self._breaks = list(breaks)

    def to(self, request: Received) -> tuple[str, bytes]:
        """The head and the body of an answer."""
        lines = ["HTTP/1.1 200 OK", "content-type: application/octet-stream"]
        body = self.data
        if self.etag is not None:
            lines.append(f"etag: {self.etag}")
            ranges, conditions = request.header("range"), request.header("if-range")
            if ranges and conditions == [self.etag]:
                start = int(re.fullmatch(r"bytes=(\d+)-", ranges[0])[1])  # type: ignore[index]
                lines[0] = "HTTP/1.1 206 Partial Content"
                size = len(body)
                if start >= size:
                    return f"HTTP/1.1 416 X\r\ncontent-range: bytes */{size}\r\n", b""
                lines.append(f"content-range: bytes {start}-{size - 1}/{size}")
                body = body[start:]
        if self.length:
            lines.append(f"content-length: {len(body)}")
        return "\r\n".join((*lines, "")), body

    def served(self, server: Server) -> Misbehaviour:
        """Answers the latest request of a server."""

        async def behave(writer: asyncio.StreamWriter) -> None:
            head, body = self.to(server.received[-1])
            if " 416 " in head:
                head += "content-length: 0\r\n"
            limit = self._breaks.pop(0) if self._breaks else len(body)
            writer.write(head.encode() + b"\r\n" + body[:limit])
            await writer.drain()
            if limit < len(body) or not self.length:
                writer.close()

        return behave


@contextlib.asynccontextmanager
async def giving(*ways: File | Misbehaviour) -> AsyncIterator[Server]:
    """A server of one output, which behaves in turn, the last way for ever."""
    async with serving() as server:
        server.ways = [each.served(server) if isinstance(each, File) else each for each in ways]
        yield server


def output(server: Server) -> str:
    """The URL of a server's output, with something in it that nobody may see."""
    return f"{server.url}/made/video.mp4?signature=s3cret"


def event(
    *urls: str, id: str = ID, task: str = "task-1", type: str = "prediction.completed", **more: Any
) -> Event:
    body: dict[str, Any] = {
        "id": task,
        "status": "completed",
        "model": "kwaivgi/kling",
        "outputs": list(urls),
    }
    body |= {"input": {"prompt": "a private prompt"}}
    given = {"model": "kwaivgi/kling", "received_at": NOW, **more}
    return Event(id, "wavespeed", type, subject=task, body=json.dumps(body).encode(), **given)


def context(seconds: float = 60.0, *, now: float = NOW, event_id: str = ID) -> Context:
    return Context(f"{event_id}/keep", "keep", 1, deadline=now + seconds)


def settings(to: str | Path, **more: Any) -> ArchiveSettings:
    return ArchiveSettings.model_validate({"to": str(to), "allow": ["127.0.0.1"], **more})


@contextlib.asynccontextmanager
async def archive(
    to: Path, *, now: float = NOW, checkpoint: int = 2**20, **more: Any
) -> AsyncIterator[Archive]:
    """An archive in a folder, at a fixed time."""
    to.mkdir(exist_ok=True)
    handler = Archive(
        settings(to, **more), DiskStorage(to.resolve(), checkpoint), clock=lambda: now
    )
    try:
        yield handler
    finally:
        await handler.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }
