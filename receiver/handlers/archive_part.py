"""One output on its way to a folder of this machine.

A part is locked by the run that writes it. Beside it stands how much of it has been written, and
since which start of the machine: a later run goes on from there, also after a kill, but not after
a power cut, of which nobody knows what it has left.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from receiver.handlers.archive_content import SNIFFED, Content
from receiver.handlers.archive_folder import Folder
from receiver.handlers.archive_names import Name
from receiver.handlers.archive_root import OURS, Part, Taken
from receiver.handlers.archive_threads import ended, in_thread, started
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON

MARK = 8 * 2**20
"""Bytes after which it is noted how far a part is."""

MARGIN = 64 * 2**20
"""Bytes that stay free: a full disk may be the inbox's too."""

HELD = 4 * 2**20
"""Bytes that are held in memory while a thread writes others."""

_BLOCK = 2**20
# https://pubs.opengroup.org/onlinepubs/9699919799/basedefs/limits.h.html: IOV_MAX is 1024 here.
_VECTOR = 1024


class DiskPart(Part):
    """A file below `OURS`, locked by who writes it; reads and writes go through threads."""

    def __init__(self, folder: Folder, key: str, name: Name, mark: int) -> None:
        self.content = Content()
        self.etag: str | None = None
        self._folder = folder
        self._name = name
        self._part = f"{OURS}/{key}.part"
        self._note = f"{OURS}/{key}.json"
        self._mark = mark
        self._noted = 0
        self._file = -1
        self._held: list[bytes] = []
        self._writing: asyncio.Future[None] | None = None
        self._failed = False
        self._kept = False

    def open(self) -> None:
        """Take up what an earlier run has left, or begin; blocks."""
        while not self._lock():
            pass
        try:
            self._resume()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> bool:
        """Open the part for us alone; False where it is none any more."""
        import fcntl  # not on every system; `archive_place` refuses a folder there

        with self._folder.at(self._part, make=True) as (folder, last):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.open(last, flags, 0o666, dir_fd=folder)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            text = "another run of this dispatch is still at it"
            raise BlockingIOError(errno.EAGAIN, text) from None
        links = os.fstat(self._file).st_nlink
        if links == 1:
            return True
        if links > 1:
            # Its run was killed just when it had its final name too: that file stays as it is.
            self._folder.remove(self._part)
        os.close(self._file)
        return False

    def _resume(self) -> None:
        size = os.fstat(self._file).st_size
        match _read(self._folder.read(self._note)):
            case {"etag": str(etag), "size": int(noted), "boot": str(boot)}:
                if boot == _boot() and noted <= size:
                    self.etag, self._noted = etag, noted
            case _:
                pass
        os.ftruncate(self._file, self._noted)
        while self.content.size < self._noted:
            data = os.read(self._file, _BLOCK)
            if not self.content.size:
                self.content.begin(data)
            self.content.feed(data)

    async def begin(self, etag: str | None) -> None:
        """See `Part.begin`."""
        await self.flush()
        await in_thread(self._begin)
        self.content, self.etag, self._noted, self._failed = Content(), etag, 0, False

    def _begin(self) -> None:
        # The note first: it must not speak of what follows.
        self._folder.remove(self._note)
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    async def expect(self, more: int) -> None:
        """See `Part.expect`."""
        about = os.fstatvfs(self._file)
        free = about.f_bavail * about.f_frsize
        if more + MARGIN > free:
            raise OSError(errno.ENOSPC, f"{more} bytes are to come, and {free} are free")

    async def write(self, blocks: Sequence[bytes]) -> None:
        """See `Part.write`."""
        self._held.extend(blocks)
        # While a thread writes, the next bytes are held, but not too many of them.
        busy = self._writing is not None and not self._writing.done()
        if not busy or sum(map(len, self._held)) >= HELD:
            await self._next()

    async def _next(self) -> None:
        """Wait for what is being written, and write what is held."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await ended(writing)
        held, self._held = self._held, []
        if held:
            self._writing = started(lambda: self._write(held))

    def _write(self, blocks: Sequence[bytes]) -> None:
        if self._failed:
            raise OSError(errno.EIO, "an earlier block was not written")
        self._failed = True
        for at in range(0, len(blocks), _VECTOR):
            some = blocks[at : at + _VECTOR]
            if os.writev(self._file, some) != sum(map(len, some)):
                raise OSError(errno.ENOSPC, "not all of it could be written")
        for block in blocks:
            self.content.feed(block)
        self._failed = False
        if self.content.size - self._noted >= self._mark:
            if sys.platform == "linux":
                # It begins to write to the disk, so that less is left to wait for at the end.
                os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._remember()

    def _remember(self) -> None:
        self._noted = self.content.size
        if self.etag is not None:
            note = {"etag": self.etag, "size": self._noted, "boot": _boot()}
            self._folder.write(self._note, json.dumps(note).encode(), durable=False)

    async def flush(self) -> None:
        """See `Part.flush`."""
        while self._held or self._writing is not None:
            await self._next()

    async def keep(self) -> str:
        """See `Part.keep`."""
        await self.flush()
        return await in_thread(self._keep)

    def _keep(self) -> str:
        name = self._name.final(self.content.kind, self.content.sha256)
        os.fsync(self._file)
        try:
            self._folder.link(self._part, name)
        except FileExistsError:
            if self._folder.sha256(name) != self.content.sha256:
                raise Taken from None
        self._forget()
        self._kept = True
        return name

    def _forget(self) -> None:
        self._folder.remove(self._note)
        self._folder.remove(self._part)

    async def close(self) -> None:
        """See `Part.close`."""
        try:
            # What it ran into has been told by the one before it.
            with suppress(OSError):
                await self.flush()
        finally:
            await in_thread(self._close)

    def _close(self) -> None:
        try:
            if self._kept:
                # What has the part's name by now is another run's.
                return
            if self.etag is None or self.content.size < SNIFFED:
                self._forget()
            elif self.content.size > self._noted:
                # What cannot be noted is fetched anew; why, somebody else has been told.
                with suppress(OSError):
                    self._remember()
        finally:
            os.close(self._file)


def _read(data: bytes | None) -> JSON:
    """What was noted of a part; None where it cannot be read."""
    try:
        return parse(data or b"")
    except Unreadable:
        return None


@functools.cache
def _boot() -> str:
    """What names this start of the machine; different each time where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return secrets.token_hex(16)
