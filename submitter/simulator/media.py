"""The files that the simulator serves: a first frame (PNG) and a result (MP4), made from nothing.

Both are real: any decoder opens them.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

from submitter.simulator import h264

FIRST_FRAME = "/media/first-frame.png"
"""The path of the picture."""


def png(side: int = 320) -> bytes:
    """A square RGB picture, large enough to be a first frame.

    Args:
        side: pixels.
    """
    rows = bytearray()
    for y in range(side):
        rows.append(0)
        for x in range(side):
            # Steps, not a smooth slope: they compress to a few kilobytes.
            rows += bytes((x // 16 * 12 % 256, y // 16 * 12 % 256, 160))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@lru_cache(maxsize=4)
def mp4(seconds: int = 5) -> bytes:
    """A video of a square that moves along the diagonal, a few dozen kilobytes.

    Args:
        seconds: how long it plays.
    """
    samples = [_sample(nal) for nal in h264.frames()]
    mdat_at = len(_FTYP) + 8
    moov = _moov(samples, mdat_at, seconds * 1000)
    return _FTYP + _box(b"mdat", *samples) + moov


def _sample(nal: bytes) -> bytes:
    return struct.pack(">I", len(nal)) + nal


def _box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + name + data


def _full(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", flags), *parts)


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


_FTYP = _box(b"ftyp", b"isom", _u32(512), b"isomiso2avc1mp41")
_MATRIX = _u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _moov(samples: list[bytes], mdat_at: int, ms: int) -> bytes:
    """Everything a player must know before the samples; times in milliseconds."""
    pixels = h264.SIDE * h264.BLOCK
    sps, pps = h264.sequence(), h264.picture()
    avcc = _box(
        b"avcC",
        bytes((1, *sps[1:4], 0xFF, 0xE1)),
        struct.pack(">H", len(sps)) + sps,
        b"\x01" + struct.pack(">H", len(pps)) + pps,
    )
    entry = _box(
        b"avc1",
        bytes(6) + struct.pack(">H", 1) + bytes(16),
        struct.pack(">HHIIIH", pixels, pixels, 0x480000, 0x480000, 0, 1),
        bytes(32) + struct.pack(">Hh", 24, -1),
        avcc,
    )
    table = _box(
        b"stbl",
        _full(b"stsd", _u32(1), entry),
        _full(b"stts", _u32(2, len(samples) - 1, ms // len(samples), 1, _last(ms, len(samples)))),
        _full(b"stss", _u32(1, 1)),
        _full(b"stsc", _u32(1, 1, len(samples), 1)),
        _full(b"stsz", _u32(0, len(samples), *map(len, samples))),
        _full(b"stco", _u32(1, mdat_at)),
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", _u32(0, 0, 1000, ms), struct.pack(">HH", 0x55C4, 0)),
        _full(b"hdlr", _u32(0), b"vide", bytes(12), b"video\0"),
        _box(
            b"minf",
            _full(b"vmhd", bytes(8), flags=1),
            _box(b"dinf", _full(b"dref", _u32(1), _full(b"url ", flags=1))),
            table,
        ),
    )
    track = _full(
        b"tkhd",
        _u32(0, 0, 1, 0, ms, 0, 0, 0, 0),
        _MATRIX,
        _u32(pixels << 16, pixels << 16),
        flags=3,
    )
    movie = _full(
        b"mvhd", _u32(0, 0, 1000, ms, 0x10000, 0x1000000, 0, 0), _MATRIX, bytes(24), _u32(2)
    )
    return _box(b"moov", movie, _box(b"trak", track, media))


def _last(ms: int, frames: int) -> int:
    """How long the last frame stands, so that the video is exactly as long as asked."""
    return ms - ms // frames * (frames - 1)
