"""A result on its way into a chat, and requests that have to wait for each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from receiver.errors import Retry
from receiver.handlers.chat.http import (
    ChatClient,
    ServiceResponse,
    bounded_seconds,
    error_for,
    retry_after_header,
)
from receiver.handlers.chat.media import Media, MediaReader, MediaUnusable, multipart
from submitter.submit.files import file_type
from tests.support.chat_events import NOW
from tests.support.chat_service import MP4, Request


@asynccontextmanager
async def sending(*pieces: bytes) -> AsyncIterator[str]:
    """A server that writes these pieces, one after the other, and closes; gives its URL."""
    written: set[asyncio.Task[None] | None] = set()

    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        written.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(write, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/video.mp4"
    finally:
        server.close()
        await asyncio.gather(*(task for task in written if task), return_exceptions=True)


async def read(url: str, most: int = 1000) -> tuple[str, int, bytes]:
    """What kind it is, its size, and all of it."""
    reader = MediaReader(("127.0.0.1",), most)
    try:
        async with reader.open(url, 5.0) as media:
            content = b"".join([part async for part in media.content])
            return media.sort, media.size, content
    finally:
        await reader.close()


async def test_it_is_known_by_its_first_bytes_however_they_come() -> None:
    """In pieces smaller than what is looked at."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n"
    data = MP4[:40]
    async with sending(head, data[:5], data[5:9], data[9:24], data[24:]) as url:
        assert await read(url) == ("video", 40, data)


async def test_the_smallest_picture_is_a_picture() -> None:
    """It ends before as much is read as would be looked at."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"
    async with sending(head, b"\x89PNG\r\n\x1a\n") as url:
        assert await read(url) == ("image", 8, b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("200 OK\r\n", "its size is unknown"),
        ("200 OK\r\ncontent-length: 1001\r\n", "it has 1001 bytes; the limit is 1000"),
        ("200 OK\r\ncontent-length: 0\r\n", "it has 0 bytes; the limit is 1000"),
        ("206 Partial\r\ncontent-length: 40\r\n", r"it could not be read \(HTTP 206\)"),
        ("200 OK\r\ncontent-length: 40\r\ncontent-encoding: gzip\r\n", "DecodingError"),
    ],
)
async def test_what_cannot_be_sent_on_says_why(head: str, why: str) -> None:
    """F35, F16: without a word of the URL."""
    async with sending(f"HTTP/1.1 {head}\r\n".encode(), MP4[:40]) as url:
        with pytest.raises(MediaUnusable, match=why) as unfit:
            await read(url)
    assert "video.mp4" not in str(unfit.value)


async def test_an_inside_url_is_not_read() -> None:
    """F34: an output that points inside, where `allow` does not name it."""
    async with sending(b"") as url:
        with pytest.raises(MediaUnusable, match=r"127\.0\.0\.1 is a loopback address"):
            async with MediaReader((), 1000).open(url, 5.0):
                pass


async def test_a_form_with_a_file_is_one_that_others_read() -> None:
    """By the standard library's reader, and of the length that was said."""

    async def content() -> AsyncIterator[bytes]:
        yield MP4[:100]
        yield MP4[100:]

    media = Media(file_type(MP4), len(MP4), content())
    headers, body = multipart({"a": "é\r\n--x", "b": "{}"}, "files[0]", "video-1.mp4", media)
    data = b"".join([part async for part in body])
    assert int(headers["content-length"]) == len(data)
    parts = Request("POST", "/", headers, data).parts
    assert parts["a"][2].decode() == "é\r\n--x"
    assert parts["files[0]"] == ("video-1.mp4", "video/mp4", MP4)


async def test_a_place_that_stays_busy_is_tried_again() -> None:
    """F24: one request that hangs holds no other run beyond its own time."""
    async with sending(b"HTTP/1.1 2") as url:
        sender = ChatClient(("127.0.0.1",), clock=time.time)
        try:
            now = time.time()
            first = asyncio.create_task(sender.send("GET", url, now + 5.0, rate_key="a"))
            await asyncio.sleep(0)
            with pytest.raises(Retry, match=r"^127\.0\.0\.1: busy with earlier messages$") as retry:
                await sender.send("GET", url, now + 0.01, rate_key="a")
            assert retry.value.pause
            with pytest.raises(Retry):
                await first
        finally:
            await sender.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1.5, 1.5),
        ("2", 2.0),
        (0, 0.0),
        (-1, None),
        (True, None),
        ("x", None),
        ("nan", None),
        (None, None),
        (10**400, None),
        (1e9, 86_400.0),
    ],
)
def test_seconds_that_a_service_names(value: object, seconds: float | None) -> None:
    """F27: a day at most, and nothing that is no number."""
    assert bounded_seconds(value) == seconds  # type: ignore[arg-type]


def test_a_wait_is_only_read_where_one_is_asked_for() -> None:
    """Retry-After of a 200 says nothing to us."""
    headers = {"retry-after": "5"}
    waits = [
        retry_after_header(ServiceResponse("h", status, headers, "", {}), NOW)
        for status in (200, 429, 503, 500)
    ]
    assert waits == [None, 5.0, 5.0, None]
    assert str(error_for(ServiceResponse("h", 418, {}, "", {}), "why")) == "h: HTTP 418: why"
