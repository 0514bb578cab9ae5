"""Manifest of an event's files; until all are stored, a progress record of the finished ones.

The manifest is the event in the shape of `receiver.handlers.envelope`, and in addition

    "kept_at": "2026-08-01T12:00:07Z",
    "files": [{"index": 0,                   index among the outputs
               "source": "https://…",        the output's URL, as the API gave it
               "name": "2026-08-01/…/0.mp4", below the archive's root
               "size": 1048576,              bytes
               "sha256": "…",                of the content, in hex
               "type": "video/mp4",          as the content says
               "kept_at": "2026-08-01T12:00:07Z"}]
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from receiver.event import Event
from receiver.handlers.envelope import envelope
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON
from submitter.timestamps import rfc3339_clamped


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One output under its final name; the module's docstring explains each field."""

    index: int
    source: str
    name: str
    size: int
    sha256: str
    type: str
    kept_at: str


def manifest(event: Event, files: Iterable[StoredOutput], now: float) -> bytes:
    """Manifest of an event whose outputs are all stored."""
    return _encode({**envelope(event), "kept_at": rfc3339_clamped(now), **_files(files)})


def progress(event: Event, files: Iterable[StoredOutput]) -> bytes:
    """Progress record of the outputs that are stored already."""
    return _encode({"data": {"id": event.id}, **_files(files)})


def stored_outputs(data: bytes | None, event: Event) -> list[StoredOutput] | None:
    """Files in a manifest or progress record; None if it belongs to another event.

    Args:
        data: the file's content; None or malformed data has no files.
        event: the event.
    """
    try:
        found = parse(data or b"{}")
    except Unreadable:
        return []
    match found:
        case {"data": {"id": str(id)}, "files": list(files)}:
            if id != event.id:
                return None
            return [output for each in files if (output := _read(each)) is not None]
        case _:
            return []


def _files(files: Iterable[StoredOutput]) -> dict[str, JSON]:
    return {"files": [asdict(each) for each in sorted(files, key=lambda each: each.index)]}


def _encode(value: JSON) -> bytes:
    return json.dumps(value, indent=1).encode("ascii") + b"\n"


def _read(value: JSON) -> StoredOutput | None:
    match value:
        case {
            "index": int(index),
            "source": str(source),
            "name": str(name),
            "size": int(size),
            "sha256": str(sha256),
            "type": str(content_type),
            "kept_at": str(kept_at),
        }:
            return StoredOutput(index, source, name, size, sha256, content_type, kept_at)
        case _:
            return None
