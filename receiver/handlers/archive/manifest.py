"""What is written beside the files: the manifest, and until it can be, which outputs are done.

The manifest is the event as `receiver.handlers.envelope` has it, and further

    "kept_at": "2026-08-01T12:00:07Z",
    "files": [{"index": 0,                   the place among the outputs
               "source": "https://…",        the output's URL, as the API gave it
               "name": "2026-08-01/…/0.mp4", below the root
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
from receiver.handlers.envelope import envelope, moment
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Kept:
    """One output that is under its name; the module's docstring has the meaning of each field."""

    index: int
    source: str
    name: str
    size: int
    sha256: str
    type: str
    kept_at: str


def manifest(event: Event, files: Iterable[Kept], now: float) -> bytes:
    """The manifest of an event all of whose outputs are kept."""
    return _encode({**envelope(event), "kept_at": moment(now), **_files(files)})


def progress(event: Event, files: Iterable[Kept]) -> bytes:
    """A note of the outputs that are kept already."""
    return _encode({"data": {"id": event.id}, **_files(files)})


def kept_in(data: bytes | None, event: Event) -> list[Kept] | None:
    """The files of a manifest or a note; None where it is another event's.

    Args:
        data: what was read, if there was anything; what cannot be understood holds no files.
        event: whose files they must be.
    """
    try:
        found = parse(data or b"{}")
    except Unreadable:
        return []
    match found:
        case {"data": {"id": str(id)}, "files": list(files)}:
            if id != event.id:
                return None
            return [kept for each in files if (kept := _read(each)) is not None]
        case _:
            return []


def _files(files: Iterable[Kept]) -> dict[str, JSON]:
    return {"files": [asdict(each) for each in sorted(files, key=lambda each: each.index)]}


def _encode(value: JSON) -> bytes:
    return json.dumps(value, indent=1).encode("ascii") + b"\n"


def _read(value: JSON) -> Kept | None:
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
            return Kept(index, source, name, size, sha256, content_type, kept_at)
        case _:
            return None
