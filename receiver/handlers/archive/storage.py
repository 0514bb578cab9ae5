"""Port of an archive's storage, and its promises.

1. A file under its final name is complete and durable, or it does not exist.
2. A file is never replaced. Keeping the same content again succeeds; keeping another content under
   its name is `NameTaken`.
3. Names are relative, with `/` between plain segments (`receiver.handlers.archive.names`). The
   archive's own files are in `PRIVATE_FOLDER`, which no output's name can reach.
4. Two concurrent runs of one dispatch, one of which seemed dead, do not damage each other's files.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from receiver.handlers.archive.content import Content
from receiver.handlers.archive.names import OutputName

PRIVATE_FOLDER = ".wavehook"
"""Folder of partial files and progress records, which a later run reads."""

T = TypeVar("T")


class NameTaken(Exception):
    """Another content has the name."""


class PartialFile(ABC):
    """One output during its download.

    Attributes:
        content: the bytes so far.
        etag: strong ETag of the response; None if the download cannot be resumed.
    """

    content: Content
    etag: str | None

    @abstractmethod
    async def begin(self, etag: str | None) -> None:
        """Start from the first byte; the ETag is that of the bytes to follow."""

    async def expect(self, more: int) -> None:  # noqa: B027 - most storages have no limit
        """Announce the number of bytes to follow.

        Raises:
            OSError: there is not enough room.
        """

    @abstractmethod
    async def write(self, blocks: Sequence[bytes]) -> None:
        """Append bytes; `content.begin` was called before. May raise a fault of earlier bytes."""

    @abstractmethod
    async def flush(self) -> None:
        """Wait until `content` has every byte that was written."""

    @abstractmethod
    async def keep(self) -> str:
        """Move the complete file to its final name, and return the name.

        Raises:
            NameTaken: another content has the name.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release the file; a download that can be resumed stays for the next run."""


class ArchiveStorage(ABC):
    """Storage of files. Every method may raise the storage's own errors."""

    @abstractmethod
    async def partial_file(self, key: str, name: OutputName) -> PartialFile:
        """Open an output, at the state that an earlier run left.

        Args:
            key: of this output, the same in every run; a plain segment of a name.
            name: its final name.
        """

    @abstractmethod
    async def forget(self, key: str) -> None:
        """Remove a partial file."""

    @abstractmethod
    async def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""

    @abstractmethod
    async def read(self, name: str) -> bytes | None:
        """Read a small file of the archive's own; None if it does not exist."""

    @abstractmethod
    async def write(self, name: str, data: bytes) -> None:
        """Write a small file of the archive's own atomically; it may replace an earlier one."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Remove a small file of the archive's own, if it exists."""

    @abstractmethod
    async def check(self) -> str:
        """Write, read and remove a small file; returns the finding in one sentence."""


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; a cancellation waits for its end."""
    return await finish(start_in_thread(work))


def start_in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Start blocking work in a thread; `finish` returns its result."""
    return asyncio.get_running_loop().run_in_executor(None, work)


async def finish(job: asyncio.Future[T]) -> T:
    """Wait for a job's end; a cancellation waits for it too."""
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait({job})
        job.exception()  # Marks the error as read; the cancellation goes on.
        raise
