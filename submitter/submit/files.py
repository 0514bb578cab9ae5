"""Local files of an input: found, read and checked before anything is sent.

After its upload, a file's URL is sent in its place. Until then a placeholder URL with the file's
digest stands there, so that the rest of the input can be checked. The type of a file is taken from
its first bytes, because names and suffixes may be wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from submitter.api.requests import MAX_UPLOAD_BYTES
from submitter.errors import Fault
from submitter.prediction import JSON
from submitter.submit.json_check import json_faults, member_path


@dataclass(frozen=True, slots=True)
class FileType:
    """A kind of file.

    Attributes:
        name: also the ending of its files, such as `png`.
        content_type: such as `image/png`.
    """

    name: str
    content_type: str


UNKNOWN = FileType("bin", "application/octet-stream")

JPEG = FileType("jpeg", "image/jpeg")
PNG = FileType("png", "image/png")
_WEBP = FileType("webp", "image/webp")
_GIF = FileType("gif", "image/gif")
_WAV = FileType("wav", "audio/wav")
_AVI = FileType("avi", "video/x-msvideo")
_MP3 = FileType("mp3", "audio/mpeg")
_MP4 = FileType("mp4", "video/mp4")

_BEGINNINGS = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", FileType("bmp", "image/bmp")),
    (b"\x1aE\xdf\xa3", FileType("webm", "video/webm")),
    (b"ID3", _MP3),
    (b"\xff\xfb", _MP3),
    (b"\xff\xf3", _MP3),
    (b"\xff\xf2", _MP3),
    (b"OggS", FileType("ogg", "audio/ogg")),
    (b"fLaC", FileType("flac", "audio/flac")),
    (b"PK\x03\x04", FileType("zip", "application/zip")),
)

# RIFF and ISO files say further in what they hold.
_RIFF = {b"WEBP": _WEBP, b"WAVE": _WAV, b"AVI ": _AVI}
_ISO = {
    b"avif": FileType("avif", "image/avif"),
    b"heic": FileType("heic", "image/heic"),
    b"heix": FileType("heic", "image/heic"),
    b"mif1": FileType("heic", "image/heic"),
    b"qt  ": FileType("mov", "video/quicktime"),
    b"M4A ": FileType("m4a", "audio/mp4"),
}


def file_type(data: bytes) -> FileType:
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


MAX_TOTAL_BYTES = 2**30
"""Bytes of all files of one input, which are held in memory until they are sent."""

_PLACEHOLDER_URL = "https://upload.invalid/"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to be uploaded.

    Attributes:
        path: where it stands in the input, such as `image`; the first place of several.
        data: its content.
        digest: SHA-256 in hex.
        filename: made from the digest: the user's own names stay on this machine.
        content_type: by content.
    """

    path: str
    data: bytes = field(repr=False)
    digest: str
    filename: str
    content_type: str


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """An input whose local files have been read.

    Attributes:
        input: with a placeholder URL for each file, which depends on its content alone.
        files: each content once.
        faults: of the files.
    """

    input: dict[str, Any] = field(repr=False)
    files: tuple[LocalFile, ...] = ()
    faults: tuple[Fault, ...] = ()

    def filled(self, urls: Mapping[str, str]) -> dict[str, JSON]:
        """The input as it is sent.

        Args:
            urls: of the uploaded files, by digest.

        Raises:
            KeyError: one is missing.
        """
        places = {_PLACEHOLDER_URL + file.digest: urls[file.digest] for file in self.files}

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: fill(member) for name, member in value.items()}
            if isinstance(value, list):
                return [fill(member) for member in value]
            return places.get(value, value) if isinstance(value, str) else value

        return {name: fill(member) for name, member in self.input.items()}


def prepare(input: Mapping[str, object], schema: Mapping[str, JSON]) -> PreparedInput:
    """Read and check the local files of an input; blocks while it reads.

    Local files are bytes and paths, and texts that are no URL where the model takes media: in
    the fields that a built-in schema marks with `x-media`, else where format, hint or name of a
    field say so. Paths are taken as they are: `~` has no meaning.

    Args:
        input: as it was given.
        schema: of the model's input; empty where nobody knows it.

    Returns:
        The input without files, the files, and all of their faults.
    """
    whole: dict[str, Any] = dict(input)
    _, sound = json_faults(whole)
    if not sound:
        return PreparedInput(whole)  # the check of the input says why
    reading = _FileReader()
    filled = reading.walk(whole, dict(schema), _Position(""))
    return PreparedInput(filled, tuple(reading.files.values()), tuple(reading.faults))


def takes_files(name: str, schema: JSON) -> bool:
    """Whether a field takes the path of a local file, as far as its name and schema tell."""
    return _rule(name, schema) is not None


def is_url(value: object) -> bool:
    """Whether a value is passed on as an address, and is no file of this machine."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class _FileRule:
    """What a field takes."""

    formats: tuple[str, ...] = ()
    max_bytes: int = MAX_UPLOAD_BYTES
    min_pixels: int = 0


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a value stands, and what is known of it.

    Attributes:
        path: in the input.
        rule: for texts that name files; None where texts are texts.
        declared: whether the schema has this field.
    """

    path: str
    rule: _FileRule | None = None
    declared: bool = False


class _FileRefused(Exception):
    """The words of a fault."""


class _FileReader:
    def __init__(self) -> None:
        self.files: dict[str, LocalFile] = {}
        self.faults: list[Fault] = []
        self._size = 0

    def walk(self, value: Any, schema: JSON, place: _Position) -> Any:
        """Put placeholders where files stand."""
        known = schema if isinstance(schema, dict) else {}
        if isinstance(value, dict):
            fields = known.get("properties")
            fields = fields if isinstance(fields, dict) else {}
            filled: dict[str, Any] = {}
            for name, member in value.items():
                about = fields.get(name)
                inside = _Position(
                    member_path(place.path, name), _rule(name, about), about is not None
                )
                filled[name] = self.walk(member, about, inside)
            return filled
        if isinstance(value, list):
            return [
                self.walk(
                    member, known.get("items"), replace(place, path=member_path(place.path, i))
                )
                for i, member in enumerate(value)
            ]
        if isinstance(value, bytes | Path):
            return self._take(value, place)
        if isinstance(value, str) and place.rule and not is_url(value):
            return self._take(value, place)
        return value

    def _take(self, given: bytes | Path | str, place: _Position) -> str:
        try:
            # Bytes and paths in a field that nobody has described can be nothing but files.
            rule = place.rule or (None if place.declared else _FileRule())
            if rule is None:
                raise _FileRefused("takes no file, as far as this model's schema tells")
            data = given if isinstance(given, bytes) else _read(given, rule.max_bytes)
            file = _checked(data, rule, place.path)
            if file.digest not in self.files:
                self._size += len(data)
                if self._size > MAX_TOTAL_BYTES:
                    raise _FileRefused(
                        f"is too much: together files may have {MAX_TOTAL_BYTES} bytes"
                    )
                self.files[file.digest] = file
            return _PLACEHOLDER_URL + file.digest
        except _FileRefused as refused:
            self.faults.append(Fault(place.path, str(refused)))
            return f"{_PLACEHOLDER_URL}refused"


def _rule(name: str, schema: JSON) -> _FileRule | None:
    """What files a field takes; None where it takes none, as far as is known."""
    if not isinstance(schema, dict):
        return _FileRule() if _MEDIA.search(name) else None
    marker = schema.get("x-media")
    if isinstance(marker, dict):
        return _marked(marker)
    types = schema.get("type", "string")
    listed = types if isinstance(types, list) else [types]
    takes_text = "string" in listed or "array" in listed
    if "enum" in schema or "const" in schema or not takes_text:
        return None
    hint = str(schema.get("x-ui-component")).startswith("uploader")
    items = schema.get("items")
    is_link = any(
        isinstance(each, dict) and each.get("format") in ("uri", "url") for each in (schema, items)
    )
    return _FileRule() if hint or is_link or _MEDIA.search(name) else None


_MEDIA = re.compile(r"(?:image|video|audio)s?(?:_ur[il]s?)?\Z")


def _marked(marker: Mapping[str, JSON]) -> _FileRule:
    formats, most, least = (marker.get(name) for name in ("formats", "max_bytes", "min_pixels"))
    listed = formats if isinstance(formats, list) else []
    return _FileRule(
        tuple(f for f in listed if isinstance(f, str) and f.isalnum()),
        min(most, MAX_UPLOAD_BYTES) if isinstance(most, int) else MAX_UPLOAD_BYTES,
        least if isinstance(least, int) else 0,
    )


def _checked(data: bytes, rule: _FileRule, path: str) -> LocalFile:
    """Hold a file's content against what its field takes."""
    if not data:
        raise _FileRefused("is empty")
    if len(data) > rule.max_bytes:
        raise _FileRefused(_too_large(len(data), rule.max_bytes))
    found = file_type(data)
    if rule.formats and found.name not in rule.formats:
        wanted = " or ".join(each.upper() for each in rule.formats)
        seen = "of no known kind" if found == UNKNOWN else found.name.upper()
        raise _FileRefused(f"must be {wanted}, is {seen} by its content")
    if rule.min_pixels and found in (JPEG, PNG):
        size = pixels(data)
        if size is None:
            raise _FileRefused(f"is damaged: a {found.name.upper()} whose size cannot be read")
        if min(size) < rule.min_pixels:
            least = f"{rule.min_pixels} x {rule.min_pixels}"
            raise _FileRefused(f"must have at least {least} pixels, has {size[0]} x {size[1]}")
    digest = hashlib.sha256(data).hexdigest()
    return LocalFile(path, data, digest, f"{digest[:16]}.{found.name}", found.content_type)


def _read(given: Path | str, most: int) -> bytes:
    """Read a regular file; nothing else is waited for."""
    what = "cannot be read"
    if isinstance(given, str):
        what = _no_path(given)
    try:
        about = Path(given).stat()
        if stat.S_ISDIR(about.st_mode):
            raise _FileRefused("must be a file, is a folder")
        if not stat.S_ISREG(about.st_mode):
            raise _FileRefused("must be a regular file, is a pipe, a device or the like")
        if about.st_size > most:
            raise _FileRefused(_too_large(about.st_size, most))
        with open(given, "rb", opener=_open) as file:
            # It may have grown, and some of the system's own files say that they are empty.
            return file.read(most + 1)
    except OSError as error:
        raise _FileRefused(f"{what}: {error.strerror or type(error).__name__}") from None
    except ValueError:  # such as NUL
        raise _FileRefused(f"{what}: no file has such a name") from None


def _no_path(text: str) -> str:
    """How to begin what is wrong with a path; refuses what cannot be one."""
    if not text:
        raise _FileRefused("is empty; give an http(s) URL or a local file")
    if text[:5].lower() == "data:":
        raise _FileRefused(
            "must be an http(s) URL or a local file; whether the API takes data: URIs is not "
            "documented"
        )
    if "://" in text:
        raise _FileRefused("must be an http(s) URL or a local file")
    home = ", in which `~` has no meaning" if text[0] == "~" else ""
    return f"is not an http(s) URL, and cannot be read as a local file{home}"


def _open(path: str, flags: int) -> int:
    # Should a pipe have taken the file's place by now, nobody waits for its other end.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _too_large(size: int, most: int) -> str:
    return f"must have at most {most} bytes, has {size}"
