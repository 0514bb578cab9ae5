"""Files below one folder, and never outside of it; everything here blocks.

Every folder on the way is opened from the one above it, and no symbolic link below the root is
followed: what somebody has put there does not lead out of it (F36).
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from receiver.handlers.archive_root import OURS

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
