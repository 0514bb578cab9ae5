"""Result of an archive: the kept files of an event, for handlers with `after`.

The result is JSON of this shape. A custom handler may return it too; chat messages then link its
files:

    {"files": [{"source": "https://…",       the output's URL, as the API gave it
                "name": "abc/0.mp4",         below the archive's root
                "url": "https://…",          a permanent link, or null
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
class ArchivedFile:
    """One kept output; the module's docstring explains each field."""

    source: str
    name: str
    url: str | None
    size: int
    sha256: str
    type: str


def result_of(files: list[ArchivedFile]) -> dict[str, JSON]:
    """Result of an archive with these files."""
    return {"files": [asdict(each) for each in files]}


def archived_files(context: Context) -> list[ArchivedFile]:
    """Files that earlier handlers of this event kept, in the order of handler names."""
    return [
        kept
        for _, dispatch in sorted(context.earlier.items())
        if isinstance(dispatch.result, Mapping)
        and isinstance(files := dispatch.result.get("files"), list)
        for each in files
        if (kept := _read(each)) is not None
    ]


def _read(value: JSON) -> ArchivedFile | None:
    """One entry; None if a custom handler uses `files` for something else."""
    match value:
        case {
            "source": str(source),
            "name": str(name),
            "url": str() | None as url,
            "size": int(size),
            "sha256": str(sha256),
            "type": str(content_type),
        }:
            return ArchivedFile(source, name, url, size, sha256, content_type)
        case _:
            return None
