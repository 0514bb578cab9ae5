"""Local files of an input: found, read and checked before anything is sent.

A placeholder URL with the file's digest replaces each file, so that the rest of the input can be
checked; after the upload the file's URL replaces the placeholder. The type of a file is detected
from its first bytes, because names and suffixes may be wrong.
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
    """Type of a file.

    Attributes:
        name: such as `png`; also the suffix of the uploaded file.
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

# RIFF and ISO files name their content after the first bytes.
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
    """The type of a file, detected from its first bytes; `UNKNOWN` if they match none."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], UNKNOWN)
    if data[4:8] == b"ftyp":
        return _ISO.get(data[8:12], _MP4)
    return next((found for start, found in _BEGINNINGS if data.startswith(start)), UNKNOWN)


def pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG; None if its header cannot be read."""
    import imagesize  # type: ignore[import-untyped]

    width, height = -1, -1
    # Some versions of imagesize raise on a damaged file, others return -1.
    with contextlib.suppress(Exception):
        width, height = imagesize.get(io.BytesIO(data))
    return (width, height) if width > 0 and height > 0 else None


MAX_TOTAL_BYTES = 2**30
"""Default limit for all files of one input together, which are in memory until they are sent."""

_PLACEHOLDER_URL = "https://upload.invalid/"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to be uploaded.

    Attributes:
        path: its path in the input, such as `image`; the first of several.
        data: its content.
        digest: SHA-256 in hex.
        filename: made from the digest; the user's file names are not sent.
        content_type: detected from the content.
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
        input: with a placeholder URL for each file, made from its content.
        files: each content once.
        faults: of the files.
    """

    input: dict[str, Any] = field(repr=False)
    files: tuple[LocalFile, ...] = ()
    faults: tuple[Fault, ...] = ()

    def filled(self, urls: Mapping[str, str]) -> dict[str, JSON]:
        """The input to be sent, with the URLs of the uploaded files.

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


def prepare(
    input: Mapping[str, object],
    schema: Mapping[str, JSON],
    *,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> PreparedInput:
    """Read and check the local files of an input; blocks while it reads.

    Bytes and `Path`s are files. Text that is not a URL is the path of a file in a field that takes
    media: marked with `x-media` in a built-in schema, else recognised by the field's format, hint
    or name. `~` is not expanded.

    Args:
        input: of the caller.
        schema: of the model's input; empty if unknown.
        max_total_bytes: of all files together.

    Returns:
        The input without files, the files, and all of their faults.
    """
    whole: dict[str, Any] = dict(input)
    _, sound = json_faults(whole)
    if not sound:
        return PreparedInput(whole)  # the check of the input reports the faults
    reader = _FileReader(max_total_bytes)
    filled = reader.walk(whole, dict(schema), _Position(""))
    return PreparedInput(filled, tuple(reader.files.values()), tuple(reader.faults))


def takes_files(name: str, schema: JSON) -> bool:
    """Whether a field takes the path of a local file, by its schema or name."""
    return _rule(name, schema) is not None


def is_url(value: object) -> bool:
    """Whether a value is an http(s) URL, which is passed on, and not the path of a local file."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class _FileRule:
    """Limits for the files of a field."""

    formats: tuple[str, ...] = ()
    max_bytes: int = MAX_UPLOAD_BYTES
    min_pixels: int = 0


@dataclass(frozen=True, slots=True)
class _Position:
    """Position of a value in the input.

    Attributes:
        path: in the input.
        rule: for text that is a file path; None if the field takes no files.
        declared: the schema has this field.
    """

    path: str
    rule: _FileRule | None = None
    declared: bool = False


class _FileRefused(Exception):
    """A file with a fault; its text is the fault's."""


class _FileReader:
    def __init__(self, max_total_bytes: int) -> None:
        self._max_total_bytes = max_total_bytes
        self.files: dict[str, LocalFile] = {}
        self.faults: list[Fault] = []
        self._size = 0

    def walk(self, value: Any, schema: JSON, position: _Position) -> Any:
        """Replace files with placeholders."""
        known = schema if isinstance(schema, dict) else {}
        if isinstance(value, dict):
            fields = known.get("properties")
            fields = fields if isinstance(fields, dict) else {}
            filled: dict[str, Any] = {}
            for name, member in value.items():
                info = fields.get(name)
                inner = _Position(
                    member_path(position.path, name), _rule(name, info), info is not None
                )
                filled[name] = self.walk(member, info, inner)
            return filled
        if isinstance(value, list):
            return [
                self.walk(
                    member,
                    known.get("items"),
                    replace(position, path=member_path(position.path, i)),
                )
                for i, member in enumerate(value)
            ]
        if isinstance(value, bytes | Path):
            return self._take(value, position)
        if isinstance(value, str) and position.rule and not is_url(value):
            return self._take(value, position)
        return value

    def _take(self, given: bytes | Path | str, position: _Position) -> str:
        try:
            # Bytes and `Path`s in a field that the schema does not have can only be files.
            rule = position.rule or (None if position.declared else _FileRule())
            if rule is None:
                raise _FileRefused("takes no file, by this model's schema")
            data = given if isinstance(given, bytes) else _read(given, rule.max_bytes)
            file = _checked(data, rule, position.path)
            if file.digest not in self.files:
                self._size += len(data)
                if self._size > self._max_total_bytes:
                    raise _FileRefused(
                        f"is too large: all files together may have {self._max_total_bytes} bytes"
                    )
                self.files[file.digest] = file
            return _PLACEHOLDER_URL + file.digest
        except _FileRefused as refused:
            self.faults.append(Fault(position.path, str(refused)))
            return f"{_PLACEHOLDER_URL}refused"


def _rule(name: str, schema: JSON) -> _FileRule | None:
    """The rule for the files of a field; None if it takes none."""
    if not isinstance(schema, dict):
        return _FileRule() if _MEDIA.search(name) else None
    marker = schema.get("x-media")
    if isinstance(marker, dict):
        return _rule_of_marker(marker)
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


def _rule_of_marker(marker: Mapping[str, JSON]) -> _FileRule:
    formats, max_bytes, least = (
        marker.get(name) for name in ("formats", "max_bytes", "min_pixels")
    )
    listed = formats if isinstance(formats, list) else []
    return _FileRule(
        tuple(f for f in listed if isinstance(f, str) and f.isalnum()),
        min(max_bytes, MAX_UPLOAD_BYTES) if isinstance(max_bytes, int) else MAX_UPLOAD_BYTES,
        least if isinstance(least, int) else 0,
    )


def _checked(data: bytes, rule: _FileRule, path: str) -> LocalFile:
    """Check the content of a file against the rule of its field."""
    if not data:
        raise _FileRefused("is empty")
    if len(data) > rule.max_bytes:
        raise _FileRefused(_too_large(len(data), rule.max_bytes))
    found = file_type(data)
    if rule.formats and found.name not in rule.formats:
        wanted = " or ".join(each.upper() for each in rule.formats)
        seen = "of an unknown type" if found == UNKNOWN else found.name.upper()
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


def _read(given: Path | str, max_bytes: int) -> bytes:
    """Read a regular file; pipes and devices, which could block, are refused."""
    what = "cannot be read"
    if isinstance(given, str):
        what = _path_fault_prefix(given)
    try:
        info = Path(given).stat()
        if stat.S_ISDIR(info.st_mode):
            raise _FileRefused("must be a file, is a folder")
        if not stat.S_ISREG(info.st_mode):
            raise _FileRefused("must be a regular file, is a pipe, a device or the like")
        if info.st_size > max_bytes:
            raise _FileRefused(_too_large(info.st_size, max_bytes))
        with open(given, "rb", opener=_open) as file:
            # It may have grown since, and files such as those in /proc report a size of 0.
            return file.read(max_bytes + 1)
    except OSError as error:
        raise _FileRefused(f"{what}: {error.strerror or type(error).__name__}") from None
    except ValueError:  # such as a NUL character
        raise _FileRefused(f"{what}: not a valid file name") from None


def _path_fault_prefix(text: str) -> str:
    """The first words of a fault of a path; raises for text that cannot be a path."""
    if not text:
        raise _FileRefused("is empty; give an http(s) URL or a local file")
    if text[:5].lower() == "data:":
        raise _FileRefused(
            "must be an http(s) URL or a local file; the API does not document data: URIs"
        )
    if "://" in text:
        raise _FileRefused("must be an http(s) URL or a local file")
    home = "; `~` is not expanded" if text[0] == "~" else ""
    return f"is not an http(s) URL, and cannot be read as a local file{home}"


def _open(path: str, flags: int) -> int:
    # If a pipe has replaced the file since the check, opening it does not block.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _too_large(size: int, max_bytes: int) -> str:
    return f"must have at most {max_bytes} bytes, has {size}"
