"""The files that the simulator serves: a first frame (PNG) and a result (MP4), made from nothing.

Both are real: any decoder opens them.

An H.264 encoder that fits on a page: macroblocks are raw samples (I_PCM) or skipped.

Tables and their numbers are those of ITU-T H.264, chapter 7.3.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

Colour = tuple[int, int, int]
"""Luma and the two chroma samples."""

BLOCK = 16
"""Pixels along each side of a macroblock."""

SIDE = 8
"""Macroblocks along each side of the picture."""

FRAMES = 7
"""The square moves from one corner to the other, one macroblock a frame."""

_BACKGROUND: Colour = (52, 140, 118)
_SQUARE: Colour = (200, 90, 165)


class _Bits:
    """Writes bits, most significant first, as H.264's syntax tables want them."""

    def __init__(self) -> None:
        self.done = bytearray()
        self._held = 0
        self._count = 0

    def u(self, width: int, value: int) -> None:
        """A number of a fixed width."""
        self._held = self._held << width | value
        self._count += width
        while self._count >= 8:
            self._count -= 8
            self.done.append(self._held >> self._count)
            self._held &= (1 << self._count) - 1

    def ue(self, *values: int) -> None:
        """Exp-Golomb numbers."""
        for value in values:
            width = (value + 1).bit_length()
            self.u(2 * width - 1, value + 1)

    def align(self) -> None:
        """Zero bits up to the next byte."""
        self.u(-self._count % 8, 0)

    def end(self) -> bytes:
        """The stop bit, and all that was written."""
        self.u(1, 1)
        self.align()
        return bytes(self.done)


def _nal(header: int, payload: bytes) -> bytes:
    """A NAL unit; three bytes that look like a start code are broken by a 3."""
    out = bytearray((header,))
    zeros = 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def sequence() -> bytes:
    """The sequence parameter set."""
    bits = _Bits()
    bits.u(24, 0x42C01E)  # constrained baseline, level 3.0
    bits.ue(0, 0, 2, 1)  # id, 4-bit frame numbers, output in decoding order, one reference
    bits.u(1, 0)
    bits.ue(SIDE - 1, SIDE - 1)
    bits.u(4, 0b1100)  # frames only, 8x8 inference, no cropping, no VUI
    return _nal(0x67, bits.end())


def picture() -> bytes:
    """The picture parameter set."""
    bits = _Bits()
    bits.ue(0, 0)
    bits.u(2, 0)  # CAVLC
    bits.ue(0, 0, 0)
    bits.u(3, 0)
    bits.ue(0, 0, 0)
    bits.u(3, 0b100)  # slices say whether they are deblocked
    return _nal(0x68, bits.end())


def _raw(bits: _Bits, type: int, colour: Colour) -> None:
    """One I_PCM macroblock of one colour; its type counts from 5 higher in a P slice."""
    bits.ue(type)
    bits.align()
    luma, blue, red = colour
    for sample, count in ((luma, 256), (blue, 64), (red, 64)):
        for _ in range(count):
            bits.u(8, sample)


def _square(number: int) -> set[int]:
    """The macroblocks that the square covers in one frame."""
    return {(number + y) * SIDE + number + x for y in (0, 1) for x in (0, 1)}


def _key_frame() -> bytes:
    bits = _Bits()
    bits.ue(0, 7, 0)  # first macroblock, all slices are I, PPS
    bits.u(4, 0)
    bits.ue(0)
    bits.u(2, 0)
    bits.ue(0, 1)  # QP as it is, no deblocking
    for block in range(SIDE * SIDE):
        _raw(bits, 25, _SQUARE if block in _square(0) else _BACKGROUND)
    return _nal(0x65, bits.end())


def _next_frame(number: int) -> bytes:
    bits = _Bits()
    bits.ue(0, 5, 0)
    bits.u(4, number)
    bits.u(3, 0)  # reference lists and marking as they are
    bits.ue(0, 1)
    skipped = 0
    for block in range(SIDE * SIDE):
        if block in _square(number) ^ _square(number - 1):
            bits.ue(skipped)
            _raw(bits, 30, _SQUARE if block in _square(number) else _BACKGROUND)
            skipped = 0
        else:
            skipped += 1
    if skipped:
        bits.ue(skipped)
    return _nal(0x41, bits.end())


def frames() -> list[bytes]:
    """The pictures in order, one NAL unit each."""
    return [_key_frame(), *(_next_frame(number) for number in range(1, FRAMES))]


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
    samples = [_sample(nal) for nal in frames()]
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
    pixels = SIDE * BLOCK
    sps, pps = sequence(), picture()
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
