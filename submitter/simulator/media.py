"""Media files that the simulator serves: a first frame (PNG) and a result video (MP4, H.264)."""

from __future__ import annotations

import struct
from functools import cache
from importlib.resources import files

FIRST_FRAME_PATH = "/media/first-frame.png"
"""URL path of the picture."""

VIDEO_LENGTH_MS = 5000
"""Length of the shipped video; its timescale is 1000 units per second."""


@cache
def png() -> bytes:
    """A picture of 320 x 320 pixels, large enough to be a first frame."""
    return (files(__package__) / "first_frame.png").read_bytes()


@cache
def mp4(seconds: int = 5) -> bytes:
    """A video of a moving square, about 40 kB.

    The two headers that hold a timescale are changed, so that the same frames play faster or
    slower.

    Args:
        seconds: length of the video.
    """
    video = bytearray((files(__package__) / "video.mp4").read_bytes())
    for header in (b"mvhd", b"mdhd"):
        # After the box's name: version and flags, created, modified, timescale.
        struct.pack_into(">I", video, video.index(header) + 16, max(VIDEO_LENGTH_MS // seconds, 1))
    return bytes(video)
