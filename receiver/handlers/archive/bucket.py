"""An archive in a bucket of S3, Google Cloud Storage or Azure, through obstore.

A small output goes there in one request that creates its object only if it is not there. A larger
one is sent in pieces while it comes in, and its object appears when all of it is there; that the
name is free is looked up before. A name that takes the SHA-256 is known at the end only: such an
output is sent to a name of ours, and copied within the bucket.

One large object on its way into a bucket, in pieces; nothing is seen of it before the last.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Self

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
)

from receiver.errors import Retry
from receiver.handlers.archive.content import Content
from receiver.handlers.archive.disk import in_thread
from receiver.handlers.archive.names import Name
from receiver.handlers.archive.storage import OURS, Part, Root, Taken
from submitter.submit.files import Kind

if TYPE_CHECKING:
    from obstore.store import ObjectStore


MAX_CONCURRENT_PARTS = 3
"""Pieces of one upload that are sent at the same time."""

ABORT_TIMEOUT_S = 5.0
"""Seconds to take back an upload."""


class Upload:
    """Blocks on their way into one object, given out as obstore asks for them.

    Every method but `drop` raises what obstore runs into.

    Args:
        store: obstore's.
        name: of the object.
        kind: of its content.
        piece: bytes that are sent at once.
    """

    def __init__(self, store: ObjectStore, name: str, kind: Kind, piece: int) -> None:
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._dropped = False
        self._sent = asyncio.ensure_future(
            obstore.put_async(
                store,
                name,
                self,
                attributes={"Content-Type": kind.content_type},
                use_multipart=True,
                chunk_size=piece,
                max_concurrency=MAX_CONCURRENT_PARTS,
            )
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        block = await self._blocks.get()
        if self._dropped:
            # obstore takes back what it has sent where its source fails.
            raise Dropped
        if block is None:
            raise StopAsyncIteration
        return block

    async def put(self, block: bytes | None) -> None:
        """Give one more; None is the end."""
        putting = asyncio.ensure_future(self._blocks.put(block))
        try:
            await asyncio.wait({putting, self._sent}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if self._sent.done():
            self._sent.result()

    async def finish(self) -> None:
        """Wait until the object is there."""
        await self.put(None)
        await asyncio.shield(self._sent)

    async def drop(self) -> None:
        """Take back what has been sent."""
        self._dropped = True
        with suppress(asyncio.QueueFull):
            self._blocks.put_nowait(None)
        await asyncio.wait({self._sent}, timeout=ABORT_TIMEOUT_S)
        if not self._sent.done():
            self._sent.cancel()
        elif not self._sent.cancelled():
            self._sent.exception()  # it has no reader


class Dropped(Exception):
    """The source of an upload has ended before its end."""


PIECE = 8 * 2**20
"""Bytes of one piece of an upload; an output of no more goes in one request."""


_URL = re.compile(r"\bhttps?://\S+")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")


class Bucket(Root):
    """See `Root` for the promises.

    Args:
        store: obstore's own; its prefix is the root.
        to: how a person calls it.
        piece: for `PIECE`; S3 takes no less than 5 MiB.
    """

    def __init__(self, store: ObjectStore, to: str, piece: int = PIECE) -> None:
        self.store = store
        self.to = to
        self.piece = piece

    async def part(self, key: str, name: Name) -> Part:
        """See `Root.part`; what an earlier run had sent was not complete, and is gone."""
        return BucketPart(self, key, name)

    async def forget(self, key: str) -> None:
        """See `Root.forget`."""
        await self.remove(f"{OURS}/{key}.part")

    async def size(self, name: str) -> int | None:
        """See `Root.size`."""
        try:
            with self.faults(FileNotFoundError):
                return (await obstore.head_async(self.store, name))["size"]
        except FileNotFoundError:
            return None

    async def read(self, name: str) -> bytes | None:
        """See `Root.read`."""
        try:
            with self.faults(FileNotFoundError):
                found = await obstore.get_async(self.store, name)
                return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def write(self, name: str, data: bytes) -> None:
        """See `Root.write`."""
        with self.faults():
            await obstore.put_async(self.store, name, data, use_multipart=False)

    async def remove(self, name: str) -> None:
        """See `Root.remove`; where nothing may be deleted, it stays."""
        await self._delete(name)

    async def check(self) -> str:
        """See `Root.check`."""
        name, text = f"{OURS}/{secrets.token_hex(8)}", b"wavehook check"
        await self.write(name, text)
        if await self.read(name) != text:
            raise Retry(f"{self.to}: what was written is not what is read")
        if await self._delete(name):
            return f"{self.to}: objects are written, read and deleted"
        return f"{self.to}: objects are written and read, but may not be deleted: {name} stays"

    async def _delete(self, name: str) -> bool:
        """Delete an object; False where nobody here may do that."""
        try:
            await obstore.delete_async(self.store, name)
        except FileNotFoundError:
            return True
        except PermissionDeniedError:
            return False
        except BaseError as error:
            # S3 is sent a list of keys, and answers with a code for each.
            if "AccessDenied" not in str(error):
                raise self._fault(error) from None
            return False
        return True

    async def create(
        self, name: str, content: Content, act: Callable[[bool], Awaitable[object]]
    ) -> None:
        """Do what makes an object, where there is none of its name.

        Args:
            name: of the object.
            content: what it will hold.
            act: is told whether the store itself has to see that nothing is replaced.

        Raises:
            Taken: there is one with another content.
        """
        try:
            with self.faults(AlreadyExistsError, NotSupportedError, NotImplementedError):
                await act(True)
                return
        except AlreadyExistsError:
            pass
        except (NotSupportedError, NotImplementedError):
            # Not every store can, and S3 copies so by a setting only; a look has to do.
            if await self.size(name) is None:
                with self.faults():
                    await act(False)
                return
        await self.compare(name, content)

    async def compare(self, name: str, content: Content) -> None:
        """Read an object to see that it holds this content.

        Raises:
            Taken: it does not.
        """
        sha256 = hashlib.sha256()
        with self.faults():
            found = await obstore.get_async(self.store, name)
            if found.meta["size"] != content.size:
                raise Taken
            async for block in found.stream():
                await in_thread(partial(sha256.update, block))
        if sha256.hexdigest() != content.sha256:
            raise Taken

    @contextmanager
    def faults(self, *expected: type[Exception]) -> Iterator[None]:
        """Tell what obstore runs into in a few words, without URLs: these may be signed."""
        try:
            yield
        except expected:
            raise
        except (BaseError, FileNotFoundError) as error:
            raise self._fault(error) from None

    def _fault(self, error: Exception) -> Retry:
        return Retry(f"{self.to}: {words(error)}")


class BucketPart(Part):
    """An output that is held until it is known to be large, and then sent while it comes in."""

    def __init__(self, bucket: Bucket, key: str, name: Name) -> None:
        self.content = Content()
        self.etag: str | None = None
        self._bucket = bucket
        self._ours = f"{OURS}/{key}.part"
        self._name = name
        self._held: list[bytes] = []
        self._upload: Upload | None = None
        self._there = False

    async def begin(self, etag: str | None) -> None:
        """See `Part.begin`."""
        await self.close()
        self.content, self.etag = Content(), etag
        self._held, self._there = [], False

    async def write(self, blocks: Sequence[bytes]) -> None:
        """See `Part.write`."""
        data = b"".join(blocks)
        await in_thread(partial(self.content.feed, data))
        if self._there:
            return
        self._held.append(data)
        if self._upload is None and self.content.size > self._bucket.piece:
            early = self._name.early(self.content.kind)
            if early is not None and await self._bucket.size(early) is not None:
                # It is compared at the end; nothing is sent.
                self._there, self._held = True, []
                return
            kind, piece = self.content.kind, self._bucket.piece
            self._upload = Upload(self._bucket.store, early or self._ours, kind, piece)
        if self._upload is not None:
            held, self._held = self._held, []
            with self._bucket.faults():
                for block in held:
                    await self._upload.put(block)

    async def flush(self) -> None:
        """See `Part.flush`; there is nothing to wait for."""

    async def keep(self) -> str:
        """See `Part.keep`."""
        bucket, content = self._bucket, self.content
        name = self._name.final(content.kind, content.sha256)
        if self._there:
            await bucket.compare(name, content)
        elif self._upload is None:
            await bucket.create(name, content, partial(self._put, name))
        else:
            with bucket.faults():
                await self._upload.finish()
            self._upload = None
            if self._name.early(content.kind) is None:
                await bucket.create(name, content, partial(self._copy, name))
                await bucket.remove(self._ours)
        return name

    async def _put(self, name: str, atomic: bool) -> None:
        await obstore.put_async(
            self._bucket.store,
            name,
            b"".join(self._held),
            attributes={"Content-Type": self.content.kind.content_type},
            mode="create" if atomic else "overwrite",
            use_multipart=False,
        )

    async def _copy(self, name: str, atomic: bool) -> None:
        await obstore.copy_async(self._bucket.store, self._ours, name, overwrite=not atomic)

    async def close(self) -> None:
        """See `Part.close`; an upload that is not complete leaves nothing."""
        upload, self._upload = self._upload, None
        if upload is not None:
            await upload.drop()


def words(error: Exception) -> str:
    """What obstore says in its first line, without the name and the URL, which may be signed."""
    first, *_ = str(error).splitlines() or [""]
    said = first.rpartition(" - ")[2] if " - " in first else first.partition(": ")[2]
    said = _URL.sub("…", said).partition(": <")[0].rstrip(": ")
    code = _CODE.search(str(error))
    return " ".join(filter(None, (f"{type(error).__name__}:", said[:200], code and code[1])))
