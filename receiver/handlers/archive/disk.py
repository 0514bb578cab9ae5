"""Archive storage in a folder of this machine.

`DiskStorage` is the port's implementation and `DiskPartialFile` one output during its download.
`Folder` has the blocking file operations; it opens every folder from the one above it, and follows
no symbolic link below the root, so that a planted link cannot lead out of it.

A partial file is locked by the run that writes it. A record beside it has the size that is safe to
resume from, and the boot of the machine. So a later run resumes after a kill, but not after a power
cut, which may have lost any of the bytes.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from receiver.handlers.archive.content import SNIFF_BYTES, Content
from receiver.handlers.archive.names import OutputName
from receiver.handlers.archive.storage import (
    PRIVATE_FOLDER,
    ArchiveStorage,
    NameTaken,
    PartialFile,
    finish,
    in_thread,
    start_in_thread,
)
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY

LEFTOVER_AGE_S = 8 * 86400.0
"""Age of a partial file that is removed, in seconds: its output has expired."""

CHECKPOINT_BYTES = 8 * 2**20
"""Bytes between two records of a partial file's size."""

MIN_FREE_BYTES = 64 * 2**20
"""Bytes that stay free, because the inbox may be on the same disk."""

MAX_BUFFERED_BYTES = 4 * 2**20
"""Bytes in memory while a thread writes others."""

_READ_BYTES = 2**20
# IOV_MAX: https://pubs.opengroup.org/onlinepubs/9699919799/basedefs/limits.h.html
_MAX_VECTOR = 1024


class DiskStorage(ArchiveStorage):
    """Storage in a folder.

    Args:
        folder: the root, which exists.
        checkpoint: bytes between two records of a partial file's size.
    """

    def __init__(self, folder: Path, checkpoint: int = CHECKPOINT_BYTES) -> None:
        self._folder = Folder(folder)
        self._checkpoint = checkpoint
        self._swept = False

    async def partial_file(self, key: str, name: OutputName) -> PartialFile:
        if not self._swept:
            self._swept = True
            await in_thread(
                lambda: self._folder.sweep(PRIVATE_FOLDER, time.time() - LEFTOVER_AGE_S)
            )
        part = DiskPartialFile(self._folder, key, name, self._checkpoint)
        await in_thread(part.open)
        return part

    async def forget(self, key: str) -> None:
        await self.remove(f"{PRIVATE_FOLDER}/{key}.part")
        await self.remove(f"{PRIVATE_FOLDER}/{key}.json")

    async def size(self, name: str) -> int | None:
        return await in_thread(lambda: self._folder.size(name))

    async def read(self, name: str) -> bytes | None:
        return await in_thread(lambda: self._folder.read(name))

    async def write(self, name: str, data: bytes) -> None:
        await in_thread(lambda: self._folder.write(name, data))

    async def remove(self, name: str) -> None:
        await in_thread(lambda: self._folder.remove(name))

    async def check(self) -> str:
        name, text = f"{PRIVATE_FOLDER}/{secrets.token_hex(8)}", b"wavehook check"
        await self.write(name, text)
        found = await self.read(name)
        await self.remove(name)
        if found != text:
            raise OSError(
                f"{self._folder.root}: a file that was read differs from what was written"
            )
        about = os.statvfs(self._folder.root)
        free = about.f_bavail * about.f_frsize / 1e9
        return (
            f"{self._folder.root}: files can be written, read and removed; {free:.1f} GB are free"
        )


class DiskPartialFile(PartialFile):
    """A locked file in `PRIVATE_FOLDER`; reads and writes run in threads."""

    def __init__(self, folder: Folder, key: str, name: OutputName, checkpoint: int) -> None:
        self.content = Content()
        self.etag: str | None = None
        self._folder = folder
        self._name = name
        self._part = f"{PRIVATE_FOLDER}/{key}.part"
        self._record_name = f"{PRIVATE_FOLDER}/{key}.json"
        self._checkpoint = checkpoint
        self._recorded = 0
        self._file = -1
        self._buffer: list[bytes] = []
        self._writing: asyncio.Future[None] | None = None
        self._failed = False
        self._kept = False

    def open(self) -> None:
        """Open an earlier run's file, or a new one; blocks."""
        while not self._lock():
            pass
        try:
            self._resume()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> bool:
        """Open and lock the file; returns False if it is not a partial file any more."""
        import fcntl  # Not on Windows, where `open_storage` refuses a folder.

        with self._folder.at(self._part, make=True) as (folder, last):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.open(last, flags, 0o666, dir_fd=folder)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            text = "another run of this dispatch is still writing it"
            raise BlockingIOError(errno.EAGAIN, text) from None
        links = os.fstat(self._file).st_nlink
        if links == 1:
            return True
        if links > 1:
            # Its run was killed just after it got its final name: that file stays.
            self._folder.remove(self._part)
        os.close(self._file)
        return False

    def _resume(self) -> None:
        size = os.fstat(self._file).st_size
        match _parse_record(self._folder.read(self._record_name)):
            case {"etag": str(etag), "size": int(recorded), "boot": str(boot)}:
                if boot == _boot() and recorded <= size:
                    self.etag, self._recorded = etag, recorded
            case _:
                pass
        os.ftruncate(self._file, self._recorded)
        while self.content.size < self._recorded:
            data = os.read(self._file, _READ_BYTES)
            if not self.content.size:
                self.content.begin(data)
            self.content.feed(data)

    async def begin(self, etag: str | None) -> None:
        await self.flush()
        await in_thread(self._begin)
        self.content, self.etag, self._recorded, self._failed = Content(), etag, 0, False

    def _begin(self) -> None:
        # The record first: it must not describe the bytes that follow.
        self._folder.remove(self._record_name)
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    async def expect(self, more: int) -> None:
        about = os.fstatvfs(self._file)
        free = about.f_bavail * about.f_frsize
        if more + MIN_FREE_BYTES > free:
            raise OSError(errno.ENOSPC, f"{more} bytes are needed, and {free} are free")

    async def write(self, blocks: Sequence[bytes]) -> None:
        self._buffer.extend(blocks)
        # While a thread writes, the next bytes are buffered, up to a limit.
        busy = self._writing is not None and not self._writing.done()
        if not busy or sum(map(len, self._buffer)) >= MAX_BUFFERED_BYTES:
            await self._write_next()

    async def _write_next(self) -> None:
        """Wait for the running write, and start to write the buffer."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await finish(writing)
        buffered, self._buffer = self._buffer, []
        if buffered:
            self._writing = start_in_thread(lambda: self._write(buffered))

    def _write(self, blocks: Sequence[bytes]) -> None:
        if self._failed:
            raise OSError(errno.EIO, "an earlier block was not written")
        self._failed = True
        for at in range(0, len(blocks), _MAX_VECTOR):
            some = blocks[at : at + _MAX_VECTOR]
            if os.writev(self._file, some) != sum(map(len, some)):
                raise OSError(errno.ENOSPC, "the disk took only a part of a block")
        for block in blocks:
            self.content.feed(block)
        self._failed = False
        if self.content.size - self._recorded >= self._checkpoint:
            if sys.platform == "linux":
                # Starts the write to the disk, so that the fsync at the end takes less time.
                os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._record()

    def _record(self) -> None:
        self._recorded = self.content.size
        if self.etag is not None:
            record = {"etag": self.etag, "size": self._recorded, "boot": _boot()}
            self._folder.write(self._record_name, json.dumps(record).encode(), durable=False)

    async def flush(self) -> None:
        while self._buffer or self._writing is not None:
            await self._write_next()

    async def keep(self) -> str:
        await self.flush()
        return await in_thread(self._keep)

    def _keep(self) -> str:
        name = self._name.final(self.content.kind, self.content.sha256)
        os.fsync(self._file)
        try:
            self._folder.link(self._part, name)
        except FileExistsError:
            if self._folder.sha256(name) != self.content.sha256:
                raise NameTaken from None
        self._forget()
        self._kept = True
        return name

    def _forget(self) -> None:
        self._folder.remove(self._record_name)
        self._folder.remove(self._part)

    async def close(self) -> None:
        try:
            # The method before it has raised this error already.
            with suppress(OSError):
                await self.flush()
        finally:
            await in_thread(self._close)

    def _close(self) -> None:
        try:
            if self._kept:
                # By now, a file of this name belongs to another run.
                return
            if self.etag is None or self.content.size < SNIFF_BYTES:
                self._forget()
            elif self.content.size > self._recorded:
                # Without a record, the next run downloads these bytes again.
                with suppress(OSError):
                    self._record()
        finally:
            os.close(self._file)


def _parse_record(data: bytes | None) -> JSON:
    """A partial file's record; None if it cannot be read."""
    try:
        return parse(data or b"")
    except Unreadable:
        return None


@functools.cache
def _boot() -> str:
    """Id of the machine's boot; on systems without one, a random text."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return secrets.token_hex(16)


class Folder:
    """Blocking file operations below one folder; names are relative.

    Args:
        root: the folder; symbolic links on the way to it are followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def at(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder that has a file, and the file's last segment.

        Args:
            name: of the file.
            make: create the folders on the way, durably.
        """
        *above, last = name.split("/")
        folder = os.open(self.root, _OPEN_FOLDER)
        try:
            for segment in above:
                below = _enter(folder, segment, make=make)
                os.close(folder)
                folder = below
            yield folder, last
        finally:
            os.close(folder)

    def size(self, name: str) -> int | None:
        """Size of a regular file; None if it does not exist."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            about = os.stat(last, dir_fd=folder, follow_symlinks=False)
            return about.st_size if stat.S_ISREG(about.st_mode) else None
        return None

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if it does not exist."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with os.fdopen(file, "rb") as stream:
                return stream.read()
        return None

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a small file atomically, readable by the owner only; it may replace another."""
        beside = f"{PRIVATE_FOLDER}/{secrets.token_hex(8)}"
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
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError), self.at(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    def link(self, part: str, name: str) -> None:
        """Give a file a second name, durably; on a file system without links, move it.

        Raises:
            FileExistsError: the name is taken.
        """
        with self.at(part) as (ours, old), self.at(name, make=True) as (folder, new):
            try:
                _link(ours, old, folder, new)
            finally:
                # Also if the name is taken: its writer may have been killed before its own fsync.
                os.fsync(folder)

    def sha256(self, name: str) -> str | None:
        """SHA-256 of a regular file, in hex; None if there is no such file."""
        with suppress(OSError), self.at(name) as (folder, last):
            # O_NONBLOCK: should it be a pipe, do not wait for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(last, flags, dir_fd=folder), "rb") as stream:
                if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    return hashlib.file_digest(stream, "sha256").hexdigest()
        return None

    def sweep(self, name: str, before: float) -> None:
        """Remove a folder's files that were last changed before a Unix time."""
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
            os.mkdir(segment, 0o700 if segment == PRIVATE_FOLDER else 0o777, dir_fd=folder)
            os.fsync(folder)
    try:
        return os.open(segment, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        text = "is not a folder; symbolic links below the root are not followed"
        raise NotADirectoryError(errno.ENOTDIR, text, segment) from None


def _link(ours: int, old: str, folder: int, new: str) -> None:
    try:
        os.link(old, new, src_dir_fd=ours, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links: check that the name is free, then rename.
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "exists", new) from None
        os.rename(old, new, src_dir_fd=ours, dst_dir_fd=folder)
