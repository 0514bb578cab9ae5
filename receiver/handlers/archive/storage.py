"""The port of where an archive keeps its files, and its promises.

1. Under its final name a file is whole and durable, or it is not there.
2. A file that is there is never replaced: to keep the same content again is done, to keep
   another content under its name is `Taken`.
3. Names are relative, with `/` between plain segments (`archive_names`). What is the archive's
   own lies below `OURS`, where no name of a file leads.
4. Two runs of one dispatch, one of which only seemed to be dead, do not spoil each other's files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from receiver.handlers.archive.content import Content
from receiver.handlers.archive.names import Name

OURS = ".wavehook"
"""The folder of what is left between two runs: parts of files, and which outputs are done."""


class Taken(Exception):
    """Another content has the name."""


class Part(ABC):
    """One output on its way.

    Attributes:
        content: what has been written.
        etag: of the answer that it came with; None where it cannot be gone on with.
    """

    content: Content
    etag: str | None

    @abstractmethod
    async def begin(self, etag: str | None) -> None:
        """Forget what has been written; what follows is of this ETag, a strong one or None."""

    async def expect(self, more: int) -> None:  # noqa: B027 - most places need not be asked
        """So many bytes are to come.

        Raises:
            OSError: there is no room for them.
        """

    @abstractmethod
    async def write(self, blocks: Sequence[bytes]) -> None:
        """Take more bytes; `content` has begun by then. May raise what earlier ones ran into."""

    @abstractmethod
    async def flush(self) -> None:
        """Return when `content` is all that has been written."""

    @abstractmethod
    async def keep(self) -> str:
        """Put it under its name, and return that.

        Raises:
            Taken: another content has it.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of what is held; what can be gone on with stays for the next run."""


class Root(ABC):
    """A place for files. Every method may raise what the place runs into."""

    @abstractmethod
    async def part(self, key: str, name: Name) -> Part:
        """Begin an output, or go on with what an earlier run has left.

        Args:
            key: of this output, the same in every run; a plain segment of a name.
            name: what it is to be called.
        """

    @abstractmethod
    async def forget(self, key: str) -> None:
        """Remove what may be left of a part."""

    @abstractmethod
    async def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""

    @abstractmethod
    async def read(self, name: str) -> bytes | None:
        """A small file of ours; None where there is none."""

    @abstractmethod
    async def write(self, name: str, data: bytes) -> None:
        """Put a small file of ours there, whole, also over an earlier one."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Remove a small file of ours; one that is not there is no fault."""

    @abstractmethod
    async def check(self) -> str:
        """Write, read and remove a small file; says in one sentence what was found."""
