"""A receiver whose archive takes the process down at one point: its argument.

linked: the file has its final name, and still that of a part. kept: the part is gone, and no
manifest is there. described: the manifest is there, and the dispatch is not settled.
"""

from __future__ import annotations

import os
import signal
import sys

from receiver.cli import main
from receiver.handlers.archive.disk import DiskPartialFile, DiskStorage, Folder

POINT = sys.argv.pop(1)

link, keep, write = Folder.link, DiskPartialFile.keep, DiskStorage.write


def die() -> None:
    """No handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def linking(self: Folder, part: str, name: str) -> None:
    link(self, part, name)
    if POINT == "linked":
        die()


async def keeping(self: DiskPartialFile) -> str:
    name = await keep(self)
    if POINT == "kept":
        die()
    return name


async def writing(self: DiskStorage, name: str, data: bytes) -> None:
    await write(self, name, data)
    if POINT == "described":
        die()


Folder.link = linking  # type: ignore[method-assign]
DiskPartialFile.keep = keeping  # type: ignore[method-assign]
DiskStorage.write = writing  # type: ignore[method-assign]
main()
