"""What an output is by its bytes, and whether they are all of it."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.handlers.archive.content import MAX_PARTS, Content, sniff
from submitter.simulator.media import mp4, png

MP4, PNG = mp4(), png()
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(1, 200)) * 40 + b"\xff\xd9"
WAV = b"RIFF" + struct.pack("<I", 4 + 8 + 100) + b"WAVEdata" + struct.pack("<I", 100) + bytes(100)
WEBP = b"RIFF" + struct.pack("<I", 4 + 8 + 10) + b"WEBPVP8 " + struct.pack("<I", 10) + bytes(10)


def box(name: bytes, data: bytes = b"", *, long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, name, 16 + len(data)) + data
    return struct.pack(">I4s", 8 + len(data), name) + data


FTYP = box(b"ftyp", b"isom\0\0\0\0")
MOOV, MDAT = box(b"moov", bytes(40)), box(b"mdat", bytes(300))


def content(*blocks: bytes) -> Content:
    made = Content()
    made.begin(b"".join(blocks)[:4096])
    for block in blocks:
        made.feed(block)
    return made


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (MP4, "video/mp4"),
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WAV, "audio/wav"),
        (WEBP, "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (box(b"ftyp", b"qt  "), "video/quicktime"),
        (b"ID3\x04", "audio/mpeg"),
        (b"glTF\x02\0\0\0", "model/gltf-binary"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "image/svg+xml"),
        (b'\xef\xbb\xbf\n<?xml version="1.0"?><svg>', "image/svg+xml"),
        (b"<!DOCTYPE html><html><svg>", "text/html"),
        (b'<?xml version="1.0"?><Error>', "text/html"),
        (b'{"error": 1}', "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_kind_is_what_the_bytes_say(head: bytes, kind: str) -> None:
    """F35: not what a header says; an error page is one whatever its status."""
    assert sniff(head).content_type == kind


@pytest.mark.parametrize("data", [MP4, PNG, JPEG, WAV, WEBP])
@settings(max_examples=25)
@given(cut=st.integers(0, 10**6), size=st.integers(9, 5000))
def test_whole_files_are_whole_and_cut_ones_are_not(data: bytes, cut: int, size: int) -> None:
    """F35: however the bytes are split, and wherever they end."""
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    whole = content(*blocks)
    assert not whole.cut
    assert (whole.size, whole.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    # The last four bytes of a PNG are a checksum of nothing.
    short = data[: 16 + cut % (len(data) - 16 - 5)]
    assert content(short).cut


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (FTYP + MDAT + MOOV, False),
        (FTYP + MDAT, True),
        (FTYP + MOOV + MDAT[:-1], True),
        (FTYP + MOOV + box(b"mdat", bytes(300), long=True), False),
        (FTYP + MOOV + box(b"mdat", bytes(300), long=True)[:-1], True),
        (FTYP + MOOV + box(b"mdat", bytes(300), long=True)[:12], False),
        (FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + bytes(9), False),
        (FTYP + MOOV + MDAT + bytes(50), False),
        (FTYP + MOOV + MDAT + b"\xff" * 50, False),
        (FTYP + box(b"meta") + MDAT, False),
        (box(b"ftyp", b"avif") + box(b"meta") + MDAT[:-1], True),
        (FTYP + struct.pack(">I4s", 3, b"free") + bytes(9), False),
        (FTYP + box(b"free") * (MAX_PARTS + 1), False),
        (PNG + b"a text that somebody put behind it", False),
        (JPEG + bytes(500), False),
        (b"GIF89a", False),
        (b"\x1aE\xdf\xa3", False),
    ],
)
def test_what_a_format_tells_of_its_end(data: bytes, cut: bool) -> None:
    """F35: only what is surely not all there counts as cut; what follows a file harms nobody."""
    assert content(data).cut is cut
