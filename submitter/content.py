"""What a file is, by its first bytes: names and endings are only what somebody called it."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Attributes:
        name: also the ending of its files, such as `png`.
        content_type: such as `image/png`.
    """

    name: str
    content_type: str


UNKNOWN = Kind("bin", "application/octet-stream")

JPEG = Kind("jpeg", "image/jpeg")
PNG = Kind("png", "image/png")
_WEBP = Kind("webp", "image/webp")
_GIF = Kind("gif", "image/gif")
_WAV = Kind("wav", "audio/wav")
_AVI = Kind("avi", "video/x-msvideo")
_MP3 = Kind("mp3", "audio/mpeg")
_MP4 = Kind("mp4", "video/mp4")

_BEGINNINGS = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", Kind("bmp", "image/bmp")),
    (b"\x1aE\xdf\xa3", Kind("webm", "video/webm")),
    (b"ID3", _MP3),
    (b"\xff\xfb", _MP3),
    (b"\xff\xf3", _MP3),
    (b"\xff\xf2", _MP3),
    (b"OggS", Kind("ogg", "audio/ogg")),
    (b"fLaC", Kind("flac", "audio/flac")),
    (b"PK\x03\x04", Kind("zip", "application/zip")),
)

# RIFF and ISO files say further in what they hold.
_RIFF = {b"WEBP": _WEBP, b"WAVE": _WAV, b"AVI ": _AVI}
_ISO = {
    b"avif": Kind("avif", "image/avif"),
    b"heic": Kind("heic", "image/heic"),
    b"heix": Kind("heic", "image/heic"),
    b"mif1": Kind("heic", "image/heic"),
    b"qt  ": Kind("mov", "video/quicktime"),
    b"M4A ": Kind("m4a", "audio/mp4"),
}


def kind(data: bytes) -> Kind:
    """Tell what a file is; `UNKNOWN` where its beginning says nothing."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], UNKNOWN)
    if data[4:8] == b"ftyp":
        return _ISO.get(data[8:12], _MP4)
    return next((found for start, found in _BEGINNINGS if data.startswith(start)), UNKNOWN)


def pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG picture; None where its header does not say."""
    import imagesize  # type: ignore[import-untyped]

    width, height = -1, -1
    # Some of its versions raise what they run into, others answer -1.
    with contextlib.suppress(Exception):
        width, height = imagesize.get(io.BytesIO(data))
    return (width, height) if width > 0 and height > 0 else None
