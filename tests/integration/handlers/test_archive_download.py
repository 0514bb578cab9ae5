"""How one output comes in: in bounds of size and time, and gone on with where it broke off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from receiver.errors import GiveUp, Retry
from receiver.handlers.archive.disk import DiskPartialFile, DiskStorage
from receiver.handlers.archive.download import MIN_PROGRESS_BYTES, Download, RetryBriefly
from receiver.handlers.archive.names import NameTemplate, OutputName
from receiver.handlers.archive.storage import PRIVATE_FOLDER
from receiver.outbound.client import client
from tests.support.misbehaving_server import Misbehaviour, Server, hanging, saying
from tests.support.outputs import (
    LARGE,
    MP4,
    File,
    archive,
    context,
    event,
    files,
    giving,
    output,
)

VIDEO = "2027-01-15/task-1/0.mp4"
MANIFEST = "2027-01-15/task-1/manifest.json"
HALF = len(LARGE) // 2


def ranges(server: Server) -> list[str]:
    """From where each request asked."""
    return ["".join(request.header("range")) for request in server.received]


def part_of(folder: Path) -> bytes:
    """What is left for the next run."""
    [part] = (folder / PRIVATE_FOLDER).glob("*.part")
    return part.read_bytes()


async def test_a_connection_that_breaks_is_gone_on_with(tmp_path: Path) -> None:
    """F35: each request asks for the rest, on condition that the file is still the same."""
    async with (
        giving(File(LARGE, [1_000_000, 700_000])) as server,
        archive(tmp_path) as handler,
    ):
        await handler(event(output(server)), context())
        assert ranges(server) == ["", "bytes=1000000-", "bytes=1700000-"]
        assert [each.header("if-range") for each in server.received[1:]] == [['"v1"']] * 2
    assert files(tmp_path)[VIDEO] == LARGE


async def test_a_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """F25: where two answers in turn bring next to nothing, it is the next run's turn."""
    async with (
        giving(File(LARGE, [1_000_000, 100]), File(LARGE)) as server,
        archive(tmp_path) as handler,
    ):
        server.ways.insert(1, server.ways[0])
        with pytest.raises(Retry, match=r"RemoteProtocolError after 1000100 bytes$"):
            await handler(event(output(server)), context())
        assert part_of(tmp_path) == LARGE[:1000100]
        await handler(event(output(server)), context())
        assert ranges(server) == ["", "bytes=1000000-", "bytes=1000100-"]
    assert files(tmp_path).keys() == {VIDEO, MANIFEST}
    assert files(tmp_path)[VIDEO] == LARGE


async def test_a_part_that_is_all_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25: ended just before the last step, it is asked for the rest, of which there is none."""

    async def shut_down(_: DiskPartialFile) -> str:
        raise asyncio.CancelledError

    async with giving(File(LARGE)) as server, archive(tmp_path) as handler:
        with monkeypatch.context() as patch:
            patch.setattr(DiskPartialFile, "keep", shut_down)
            with pytest.raises(asyncio.CancelledError):
                await handler(event(output(server)), context())
        assert part_of(tmp_path) == LARGE
        await handler(event(output(server)), context())
        assert ranges(server) == ["", f"bytes={len(LARGE)}-"]
    assert files(tmp_path)[VIDEO] == LARGE


@pytest.mark.parametrize(
    "second",
    [
        File(LARGE[:32] + MP4[32:], etag='"v2"'),
        File(MP4, etag=None),
        saying(b"HTTP/1.1 416 X\r\ncontent-range: bytes */99\r\ncontent-length: 0\r\n\r\n"),
        saying(b"HTTP/1.1 206 X\r\ncontent-range: bytes 5-9/10\r\ncontent-length: 5\r\n\r\n12345"),
        saying(b"HTTP/1.1 206 X\r\ncontent-length: 5\r\n\r\n12345"),
        saying(
            b'HTTP/1.1 206 X\r\netag: "v2"\r\n'
            b"content-range: bytes 1000000-1000004/1000005\r\ncontent-length: 5\r\n\r\n12345"
        ),
    ],
)
async def test_another_file_by_now_is_begun_anew(
    second: File | Misbehaviour, tmp_path: Path
) -> None:
    """F35: a part is never put together from two files, nor with what does not belong there."""
    async with (
        giving(File(LARGE, [1_000_000]), second, File(MP4, etag='"v2"')) as server,
        archive(tmp_path) as handler,
    ):
        await handler(event(output(server)), context())
        assert ranges(server)[:2] == ["", "bytes=1000000-"]
        assert len(server.received) == (2 if isinstance(second, File) else 3)
    assert files(tmp_path)[VIDEO] == MP4


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1", '"' + "x" * 300 + '"'])
async def test_without_a_strong_etag_it_is_begun_anew(etag: str | None, tmp_path: Path) -> None:
    """F35: nobody could say whether the rest belongs to what is there."""
    async with giving(File(LARGE, [1_000_000], etag), File(LARGE)) as server:
        async with archive(tmp_path) as handler:
            with pytest.raises(Retry, match="RemoteProtocolError after 1000000 bytes"):
                await handler(event(output(server)), context())
            assert files(tmp_path) == {}
            await handler(event(output(server)), context())
        assert ranges(server) == ["", ""]
    assert files(tmp_path)[VIDEO] == LARGE


async def test_a_body_that_ends_early_without_a_length(tmp_path: Path) -> None:
    """F35: nothing but the file itself tells; half a file is not kept."""
    async with giving(File(LARGE[:HALF], length=False), File(LARGE, length=False)) as server:
        async with archive(tmp_path) as handler:
            with pytest.raises(Retry, match=f"the file ends before its end, at {HALF} bytes"):
                await handler(event(output(server)), context())
            assert files(tmp_path) == {}
            await handler(event(output(server)), context())
        assert ranges(server) == ["", ""]
    assert files(tmp_path)[VIDEO] == LARGE


async def test_a_rest_that_is_shorter_than_was_said(tmp_path: Path) -> None:
    """F35: also where the body's own length says nothing of it."""
    short = (b'HTTP/1.1 206 X\r\netag: "v1"\r\ncontent-range: bytes 1000000-%d/%d\r\n\r\n%b') % (
        len(LARGE) - 1,
        len(LARGE),
        LARGE[1_000_000:1_100_000],
    )
    async with (
        giving(File(LARGE, [1_000_000]), saying(short), File(LARGE)) as server,
        archive(tmp_path) as handler,
    ):
        await handler(event(output(server)), context())
        assert ranges(server) == ["", "bytes=1000000-", "bytes=1100000-"]
    assert files(tmp_path)[VIDEO] == LARGE


@pytest.mark.parametrize("length", [True, False])
async def test_a_file_that_is_too_large_is_given_up(length: bool, tmp_path: Path) -> None:
    """F35: by what it says of itself, or by what comes; nothing of it stays."""
    async with (
        giving(File(LARGE, length=length)) as server,
        archive(tmp_path, max_size="3MB") as handler,
    ):
        with pytest.raises(GiveUp, match="larger than max_size, 3000000 bytes"):
            await handler(event(output(server)), context())
    assert files(tmp_path) == {}


async def endless(writer: asyncio.StreamWriter) -> None:
    """A video that does not end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + LARGE[:HALF])
    try:
        while not writer.is_closing():
            writer.write(bytes(2**18))
            await writer.drain()
    except ConnectionError:
        pass


async def test_an_endless_file_is_given_up(tmp_path: Path) -> None:
    """F35: capped, whatever it pretends to be."""
    async with giving(endless) as server, archive(tmp_path, max_size="10MB") as handler:
        with pytest.raises(GiveUp, match="larger than max_size"):
            await handler(event(output(server)), context())
    assert files(tmp_path) == {}


async def dripping(writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no read takes long."""
    writer.write(b'HTTP/1.1 200 OK\r\netag: "v1"\r\ncontent-length: 9999999\r\n\r\n')
    writer.write(LARGE[:100_000])
    try:
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def fetch(server: Server, folder: Path, patience: float, seconds: float) -> None:
    """One output, without an event around it."""
    folder.mkdir()
    download = Download(("*",), 10**9, patience)
    part = await DiskStorage(folder).partial_file(
        "k", OutputName(NameTemplate.parse("{index}{ext}"), {"index": "0"})
    )
    until = asyncio.get_running_loop().time() + seconds
    try:
        async with client(["127.0.0.1"], max_body=10**9) as http:
            await download.fetch(http, output(server), part, until)
            await part.keep()
    finally:
        await part.close()


async def test_a_slow_drip_is_given_up(tmp_path: Path) -> None:
    """F35: less than 64 KiB in 30 s, here in a moment, holds no place; what came is kept."""
    async with giving(dripping) as server:
        with pytest.raises(Retry, match=r"127\.0\.0\.1: TimeoutError after 1000\d\d bytes"):
            await fetch(server, tmp_path / "root", 0.2, 60.0)
        # The first answer has brought a good deal; the second, from there on, has not.
        assert len(server.received) == 2
    assert part_of(tmp_path / "root")[:MIN_PROGRESS_BYTES] == LARGE[:MIN_PROGRESS_BYTES]


async def test_an_answer_that_does_not_begin_is_given_up(tmp_path: Path) -> None:
    """F35: a server that takes the request and says nothing holds no place for half an hour."""
    async with giving(hanging) as server:
        with pytest.raises(Retry, match=r"127\.0\.0\.1: TimeoutError after 0 bytes"):
            await fetch(server, tmp_path / "root", 0.2, 600.0)


async def test_a_file_that_comes_steadily_may_take_long(tmp_path: Path) -> None:
    """F35: as long as enough of it comes, only the time limit of the run counts."""

    async def steadily(writer: asyncio.StreamWriter) -> None:
        head = f'HTTP/1.1 200 OK\r\netag: "v1"\r\ncontent-length: {len(LARGE)}\r\n\r\n'
        writer.write(head.encode())
        for at in range(0, len(LARGE), 2 * MIN_PROGRESS_BYTES):
            writer.write(LARGE[at : at + 2 * MIN_PROGRESS_BYTES])
            await writer.drain()
            await asyncio.sleep(0.045)

    async with giving(steadily) as server:
        await fetch(server, tmp_path / "root", 1.0, 60.0)
        assert len(server.received) == 1
    assert files(tmp_path / "root") == {"0.mp4": LARGE}


@pytest.mark.parametrize("seconds", [1.0, -1.0])
async def test_the_time_of_a_run_is_bounded(seconds: float, tmp_path: Path) -> None:
    """F24, F35: what came in time is left for the next run."""
    async with giving(dripping) as server:
        with pytest.raises(Retry, match=r"no time left, after \d+ bytes"):
            await fetch(server, tmp_path / "root", 30.0, seconds)
    if seconds > 0:
        assert part_of(tmp_path / "root")[:MIN_PROGRESS_BYTES] == LARGE[:MIN_PROGRESS_BYTES]


async def test_the_deadline_of_a_run_is_the_dispatchers(tmp_path: Path) -> None:
    """F24: the handler ends a little before it would be cancelled, and in good order."""
    async with giving(dripping) as server, archive(tmp_path) as handler:
        with pytest.raises(Retry, match="no time left"):
            await handler(event(output(server)), context(seconds=1.0))
    assert part_of(tmp_path)[:MIN_PROGRESS_BYTES] == LARGE[:MIN_PROGRESS_BYTES]


async def test_a_cancelled_run_leaves_what_it_has(tmp_path: Path) -> None:
    """F40: at a shutdown the dispatch is given back, and goes on elsewhere."""
    async with giving(dripping, File(LARGE)) as server, archive(tmp_path) as handler:
        running = asyncio.ensure_future(handler(event(output(server)), context()))
        await server.came.wait()
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await handler(event(output(server)), context())
    assert files(tmp_path)[VIDEO] == LARGE


@pytest.mark.parametrize("size", [1, 11, 200, 4095])
async def test_a_beginning_that_tells_nothing_is_not_judged(size: int, tmp_path: Path) -> None:
    """F35: a few bytes before a break are not taken for an unknown kind of file."""
    async with giving(File(LARGE, [size]), File(LARGE)) as server, archive(tmp_path) as handler:
        with pytest.raises(Retry, match="RemoteProtocolError after 0 bytes") as early:
            await handler(event(output(server)), context())
        assert not isinstance(early.value, RetryBriefly)
        await handler(event(output(server)), context())
    assert files(tmp_path)[VIDEO] == LARGE


async def test_types_are_a_setting(tmp_path: Path) -> None:
    """What a person takes, by content: here anything but a video."""
    text = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntext")
    async with (
        giving(text) as one,
        giving(File()) as two,
        archive(tmp_path, types=["application/octet-stream"]) as handler,
    ):
        await handler(event(output(one), id="a", task="a"), context(event_id="a"))
        with pytest.raises(Retry, match="video/mp4 by its content"):
            await handler(event(output(two)), context())
    assert files(tmp_path)["2027-01-15/a/0.bin"] == b"text"


async def test_the_progress_of_several_outputs_is_noted(tmp_path: Path) -> None:
    """F25: what is done when the process is killed is not fetched again, whatever its name."""
    async with giving(File()) as one, giving(dripping, File(LARGE)) as two:
        async with archive(tmp_path, name="{task}/{sha256}{ext}") as handler:
            made = event(output(one), output(two))
            with pytest.raises(Retry, match=r"output 2 of 2: .*no time left"):
                await handler(made, context(seconds=1.0))
            [note] = [
                json.loads(data)
                for name, data in files(tmp_path).items()
                if name.endswith(".json") and b'"files"' in data
            ]
            assert [each["index"] for each in note["files"]] == [0]
            await handler(made, context())
        assert (len(one.received), len(two.received)) == (1, 2)
    assert len(files(tmp_path)) == 3
