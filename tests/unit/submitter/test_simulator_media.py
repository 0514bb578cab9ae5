"""The simulator's files are a PNG and an H.264 video that a decoder accepts, by their structure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest

from submitter.simulator import media

FRAMES = 7

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl")


def boxes(data: bytes, at: int = 0) -> Iterator[tuple[bytes, int, bytes]]:
    """Every box with its place and content, depth first; sizes must add up exactly."""
    end = at + len(data)
    start = at
    while at < end:
        size, name = struct.unpack_from(">I4s", data, at - start)
        content = data[at - start + 8 : at - start + size]
        yield name, at + 8, content
        if name in CONTAINERS:
            yield from boxes(content, at + 8)
        at += size
    assert at == end


def test_the_picture_is_a_png_large_enough_for_a_first_frame() -> None:
    """Chunks have right checksums, and the rows inflate to 320 x 320 RGB."""
    data = media.png()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (320, 320, 8, 2, 0, 0, 0)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 320 * (1 + 320 * 3)


@pytest.mark.parametrize("seconds", [5, 10])
def test_the_video_is_as_long_as_it_was_asked_to_be(seconds: int) -> None:
    """The durations of the frames add up to the length in the header."""
    found = {name: content for name, _, content in boxes(media.mp4(seconds))}
    _, _, _, scale, length = struct.unpack_from(">5I", found[b"mdhd"])
    _, _, many, each, one, last = struct.unpack(">6I", found[b"stts"])
    assert length / scale == seconds
    assert many * each + one * last == length
    assert many + one == FRAMES


def test_the_videos_samples_lie_where_its_table_says() -> None:
    """Each sample is one NAL unit with its length before it; the first is a key frame."""
    data = media.mp4()
    found = {name: (at, content) for name, at, content in boxes(data)}
    at = struct.unpack(">3I", found[b"stco"][1])[2]
    sizes = struct.unpack_from(f">{FRAMES}I", found[b"stsz"][1], 12)
    assert at == found[b"mdat"][0]
    assert sum(sizes) == len(found[b"mdat"][1])
    kinds = []
    for size in sizes:
        assert struct.unpack_from(">I", data, at)[0] == size - 4
        kinds.append(data[at + 4] & 0x1F)
        at += size
    assert kinds == [5, 1, 1, 1, 1, 1, 1]
    assert len(data) < 60_000
