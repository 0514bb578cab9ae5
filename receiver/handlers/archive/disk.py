"""One output on its way to a folder of this machine.

A part is locked by the run that writes it. Beside it stands how much of it has been written, and
since which start of the machine: a later run goes on from there, also after a kill, but not after
a power cut, of which nobody knows what it has left.

An archive in a folder of this machine.

Files below one folder, and never outside of it; everything here blocks.

Every folder on the way is opened from the one above it, and no symbolic link below the root is
followed: what somebody has put there does not lead out of it (F36).

Work that blocks, in threads of their own, which nobody can cancel.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from receiver.handlers.archive.content import SNIFFED, Content
from receiver.handlers.archive.names import Name
from receiver.handlers.archive.storage import OURS, Part, Root, Taken
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class Folder:
    """Names are relative, with `/` between plain segments.

    Args:
        root: it is there; a symbolic link on the way to it is followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def at(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that a name is in, and the name's last segment.

        Args:
            name: of a file.
            make: also the folders on the way to it, durably.
        """
        *above, last = name.split("/")
        folder = os.open(self.root, _FOLDER)
        try:
            for segment in above:
                below = _enter(folder, segment, make=make)
                os.close(folder)
                folder = below
            yield folder, last
        finally:
            os.close(folder)

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None where there is none."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            about = os.stat(last, dir_fd=folder, follow_symlinks=False)
            return about.st_size if stat.S_ISREG(about.st_mode) else None
        return None

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with os.fdopen(file, "rb") as stream:
                return stream.read()
        return None

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Put a small file there, whole, also over an earlier one; for the owner alone."""
        beside = f"{OURS}/{secrets.token_hex(8)}"
        with self.at(beside, make=True) as (ours, new), self.at(name, make=True) as (folder, last):
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=ours)
            try:
                with os.fdopen(file, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    if durable:
                        os.fsync(file)
                os.rename(new, last, src_dir_fd=ours, dst_dir_fd=folder)
            except BaseException:
                os.unlink(new, dir_fd=ours)
                raise
            if durable:
                os.fsync(folder)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no fault."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    def link(self, part: str, name: str) -> None:
        """Give a file a second name, durably; where there are no links, its only one.

        Raises:
            FileExistsError: there is something of this name.
        """
        with self.at(part) as (ours, old), self.at(name, make=True) as (folder, new):
            try:
                _link(ours, old, folder, new)
            finally:
                # Who put there what is there may have been killed before this.
                os.fsync(folder)

    def sha256(self, name: str) -> str | None:
        """Of a regular file, in hex; None where there is none."""
        with suppress(OSError), self.at(name) as (folder, last):
            # Should it be a pipe, nobody waits for its other end.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(last, flags, dir_fd=folder), "rb") as stream:
                if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    return hashlib.file_digest(stream, "sha256").hexdigest()
        return None

    def sweep(self, name: str, before: float) -> None:
        """Remove the files of a folder that were last changed before then (Unix seconds)."""
        with (
            suppress(FileNotFoundError),
            self.at(f"{name}/") as (folder, _),
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.name, dir_fd=folder)


def _enter(folder: int, segment: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(segment, 0o700 if segment == OURS else 0o777, dir_fd=folder)
            os.fsync(folder)
    try:
        return os.open(segment, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        text = "is no folder, or a symbolic link, and none below the root is followed"
        raise NotADirectoryError(errno.ENOTDIR, text, segment) from None


def _link(ours: int, old: str, folder: int, new: str) -> None:
    try:
        os.link(old, new, src_dir_fd=ours, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links: nothing but a look tells whether the name is free.
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "is there already", new) from None
        os.rename(old, new, src_dir_fd=ours, dst_dir_fd=folder)


T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do it, and see it end also where the task is cancelled meanwhile."""
    return await ended(started(work))


def started(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin it; `ended` gives what it came to."""
    return asyncio.get_running_loop().run_in_executor(None, work)


async def ended(job: asyncio.Future[T]) -> T:
    """Wait for its end; a cancellation waits for it too."""
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait({job})
        job.exception()  # what it ran into has no reader
        raise


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
