"""PNG pictures of any size, made from nothing."""

from __future__ import annotations

import struct
import zlib


def png(side: int = 320) -> bytes:
    """A square RGB picture.

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
