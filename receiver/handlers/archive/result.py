"""What an archive kept of an event, as the handlers with `after` find it in their context.

An archive's result is JSON of this shape; a handler of your own may return it too, and chat
messages then carry its links:

    {"files": [{"source": "https://…",       the output's URL, as the API gave it
                "name": "abc/0.mp4",         below the archive's root
                "url": "https://…",          a link that lasts, or null
                "size": 1048576,             bytes
                "sha256": "…",               of the content, in hex
                "type": "video/mp4"}]}       as the content says
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from receiver.handlers.base import Context
from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Archived:
    """One kept output; the module's docstring has the meaning of each field."""

    source: str
    name: str
    url: str | None
    size: int
    sha256: str
    type: str


def result_of(files: list[Archived]) -> dict[str, JSON]:
    """What an archive returns."""
    return {"files": [asdict(each) for each in files]}


def archived(context: Context) -> list[Archived]:
    """All that earlier handlers of this event have kept, by handler name, in their own order."""
    return [
        kept
        for _, dispatch in sorted(context.earlier.items())
        if isinstance(dispatch.result, Mapping)
        and isinstance(files := dispatch.result.get("files"), list)
        for each in files
        if (kept := _read(each)) is not None
    ]


def _read(value: JSON) -> Archived | None:
    """One entry; None where a handler of somebody's means another thing by `files`."""
    match value:
        case {
            "source": str(source),
            "name": str(name),
            "url": str() | None as url,
            "size": int(size),
            "sha256": str(sha256),
            "type": str(content_type),
        }:
            return Archived(source, name, url, size, sha256, content_type)
        case _:
            return None
