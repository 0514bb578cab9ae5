"""An archive in a folder of this machine."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from receiver.handlers.archive_folder import Folder
from receiver.handlers.archive_names import Name
from receiver.handlers.archive_part import MARK, DiskPart
from receiver.handlers.archive_root import OURS, Part, Root
from receiver.handlers.archive_threads import in_thread

LEFTOVER = 8 * 86400.0
"""Seconds after which nobody goes on with a part: its output has expired."""


class Disk(Root):
    """See `Root` for the promises.

    Args:
        folder: the root; it is there.
        mark: for `MARK`.
    """

    def __init__(self, folder: Path, mark: int = MARK) -> None:
        self._folder = Folder(folder)
        self._mark = mark
        self._swept = False

    async def part(self, key: str, name: Name) -> Part:
        """See `Root.part`."""
        if not self._swept:
            self._swept = True
            await in_thread(lambda: self._folder.sweep(OURS, time.time() - LEFTOVER))
        part = DiskPart(self._folder, key, name, self._mark)
        await in_thread(part.open)
        return part

    async def forget(self, key: str) -> None:
        """See `Root.forget`."""
        await self.remove(f"{OURS}/{key}.part")
        await self.remove(f"{OURS}/{key}.json")

    async def size(self, name: str) -> int | None:
        """See `Root.size`."""
        return await in_thread(lambda: self._folder.size(name))

    async def read(self, name: str) -> bytes | None:
        """See `Root.read`."""
        return await in_thread(lambda: self._folder.read(name))

    async def write(self, name: str, data: bytes) -> None:
        """See `Root.write`."""
        await in_thread(lambda: self._folder.write(name, data))

    async def remove(self, name: str) -> None:
        """See `Root.remove`."""
        await in_thread(lambda: self._folder.remove(name))

    async def check(self) -> str:
        """See `Root.check`."""
        name, text = f"{OURS}/{secrets.token_hex(8)}", b"wavehook check"
        await self.write(name, text)
        found = await self.read(name)
        await self.remove(name)
        if found != text:
            raise OSError(f"{self._folder.root}: what was written is not what is read")
        about = os.statvfs(self._folder.root)
        free = about.f_bavail * about.f_frsize / 1e9
        return f"{self._folder.root}: files are written, read and removed; {free:.1f} GB are free"
