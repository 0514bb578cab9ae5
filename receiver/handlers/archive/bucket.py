"""Archive storage in a bucket of S3, Google Cloud Storage or Azure, through obstore.

A small output is uploaded in one request that creates its object only if the name is free. A larger
one is uploaded in parts during its download. Its object appears when it is complete; that its name
is free is checked before. A name with the SHA-256 is known at the end only: such an output is
uploaded under a private name, and copied within the bucket.
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
from receiver.handlers.archive.names import OutputName
from receiver.handlers.archive.storage import (
    PRIVATE_FOLDER,
    ArchiveStorage,
    NameTaken,
    PartialFile,
    in_thread,
)
from submitter.submit.files import FileType

if TYPE_CHECKING:
    from obstore.store import ObjectStore


MAX_CONCURRENT_PARTS = 3
"""Concurrent parts of one upload."""

ABORT_TIMEOUT_S = 5.0
"""Timeout of the request that aborts an upload."""

PART_BYTES = 8 * 2**20
"""Size of a part; an output that is not larger is uploaded in one request."""


class MultipartUpload:
    """Multipart upload of one object; obstore reads it as an async iterator.

    Every method but `abort` may raise obstore's errors.

    Args:
        store: obstore's store.
        name: of the object.
        kind: kind of its content.
        part_bytes: size of a part.
    """

    def __init__(self, store: ObjectStore, name: str, kind: FileType, part_bytes: int) -> None:
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._aborted = False
        self._uploading = asyncio.ensure_future(
            obstore.put_async(
                store,
                name,
                self,
                attributes={"Content-Type": kind.content_type},
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=MAX_CONCURRENT_PARTS,
            )
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        block = await self._blocks.get()
        if self._aborted:
            # obstore aborts the multipart upload when its source fails.
            raise UploadAborted
        if block is None:
            raise StopAsyncIteration
        return block

    async def put(self, block: bytes | None) -> None:
        """Upload one more block; None is the end."""
        putting = asyncio.ensure_future(self._blocks.put(block))
        try:
            await asyncio.wait({putting, self._uploading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if self._uploading.done():
            self._uploading.result()

    async def finish(self) -> None:
        """Complete the object."""
        await self.put(None)
        await asyncio.shield(self._uploading)

    async def abort(self) -> None:
        """Abort the upload."""
        self._aborted = True
        with suppress(asyncio.QueueFull):
            self._blocks.put_nowait(None)
        await asyncio.wait({self._uploading}, timeout=ABORT_TIMEOUT_S)
        if not self._uploading.done():
            self._uploading.cancel()
        elif not self._uploading.cancelled():
            self._uploading.exception()  # Marks the error as read.


class UploadAborted(Exception):
    """The upload was aborted."""


_URL = re.compile(r"\bhttps?://\S+")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")


class BucketStorage(ArchiveStorage):
    """Storage in a bucket.

    Args:
        store: obstore's store; its prefix is the root.
        to: the setting, for messages.
        part_bytes: size of a part of an upload; S3 requires at least 5 MiB.
    """

    def __init__(self, store: ObjectStore, to: str, part_bytes: int = PART_BYTES) -> None:
        self.store = store
        self.to = to
        self.part_bytes = part_bytes

    async def partial_file(self, key: str, name: OutputName) -> PartialFile:
        return BucketPartialFile(self, key, name)

    async def forget(self, key: str) -> None:
        await self.remove(f"{PRIVATE_FOLDER}/{key}.part")

    async def size(self, name: str) -> int | None:
        try:
            with self.translated_errors(FileNotFoundError):
                return (await obstore.head_async(self.store, name))["size"]
        except FileNotFoundError:
            return None

    async def read(self, name: str) -> bytes | None:
        try:
            with self.translated_errors(FileNotFoundError):
                found = await obstore.get_async(self.store, name)
                return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def write(self, name: str, data: bytes) -> None:
        with self.translated_errors():
            await obstore.put_async(self.store, name, data, use_multipart=False)

    async def remove(self, name: str) -> None:
        """Remove a file; it stays if the credentials do not allow deletions."""
        await self._delete(name)

    async def check(self) -> str:
        name, text = f"{PRIVATE_FOLDER}/{secrets.token_hex(8)}", b"wavehook check"
        await self.write(name, text)
        if await self.read(name) != text:
            raise Retry(f"{self.to}: an object that was read differs from what was written")
        if await self._delete(name):
            return f"{self.to}: objects can be written, read and deleted"
        return f"{self.to}: objects can be written and read, but not deleted: {name} stays"

    async def _delete(self, name: str) -> bool:
        """Delete an object; returns False if the credentials do not allow it."""
        try:
            await obstore.delete_async(self.store, name)
        except FileNotFoundError:
            return True
        except PermissionDeniedError:
            return False
        except BaseError as error:
            # S3 deletes a list of keys, and responds with a code for each.
            if "AccessDenied" not in str(error):
                raise self._retry(error) from None
            return False
        return True

    async def create(
        self, name: str, content: Content, act: Callable[[bool], Awaitable[object]]
    ) -> None:
        """Create an object if its name is free.

        Args:
            name: of the object.
            content: its content.
            act: creates it; the argument says if the store itself must refuse to replace another.

        Raises:
            NameTaken: an object of this name has another content.
        """
        try:
            with self.translated_errors(AlreadyExistsError, NotSupportedError, NotImplementedError):
                await act(True)
                return
        except AlreadyExistsError:
            pass
        except (NotSupportedError, NotImplementedError):
            # Some stores cannot refuse it, and S3 can for a copy only with a setting: check first.
            if await self.size(name) is None:
                with self.translated_errors():
                    await act(False)
                return
        await self.compare(name, content)

    async def compare(self, name: str, content: Content) -> None:
        """Read an object, and compare it with a content.

        Raises:
            NameTaken: they differ.
        """
        sha256 = hashlib.sha256()
        with self.translated_errors():
            found = await obstore.get_async(self.store, name)
            if found.meta["size"] != content.size:
                raise NameTaken
            async for block in found.stream():
                await in_thread(partial(sha256.update, block))
        if sha256.hexdigest() != content.sha256:
            raise NameTaken

    @contextmanager
    def translated_errors(self, *expected: type[Exception]) -> Iterator[None]:
        """Turn obstore's errors into `Retry`, without URLs, which may be signed."""
        try:
            yield
        except expected:
            raise
        except (BaseError, FileNotFoundError) as error:
            raise self._retry(error) from None

    def _retry(self, error: Exception) -> Retry:
        return Retry(f"{self.to}: {described(error)}")


class BucketPartialFile(PartialFile):
    """An output that is kept in memory until it exceeds one part, then uploaded as it arrives."""

    def __init__(self, bucket: BucketStorage, key: str, name: OutputName) -> None:
        self.content = Content()
        self.etag: str | None = None
        self._bucket = bucket
        self._private_name = f"{PRIVATE_FOLDER}/{key}.part"
        self._name = name
        self._held: list[bytes] = []
        self._upload: MultipartUpload | None = None
        self._exists = False

    async def begin(self, etag: str | None) -> None:
        await self.close()
        self.content, self.etag = Content(), etag
        self._held, self._exists = [], False

    async def write(self, blocks: Sequence[bytes]) -> None:
        data = b"".join(blocks)
        await in_thread(partial(self.content.feed, data))
        if self._exists:
            return
        self._held.append(data)
        if self._upload is None and self.content.size > self._bucket.part_bytes:
            early = self._name.early(self.content.kind)
            if early is not None and await self._bucket.size(early) is not None:
                # Nothing is uploaded; the content is compared at the end.
                self._exists, self._held = True, []
                return
            kind, part_bytes = self.content.kind, self._bucket.part_bytes
            self._upload = MultipartUpload(
                self._bucket.store, early or self._private_name, kind, part_bytes
            )
        if self._upload is not None:
            held, self._held = self._held, []
            with self._bucket.translated_errors():
                for block in held:
                    await self._upload.put(block)

    async def flush(self) -> None:
        """Nothing to wait for: `write` returns after the bytes are in `content`."""

    async def keep(self) -> str:
        bucket, content = self._bucket, self.content
        name = self._name.final(content.kind, content.sha256)
        if self._exists:
            await bucket.compare(name, content)
        elif self._upload is None:
            await bucket.create(name, content, partial(self._put, name))
        else:
            with bucket.translated_errors():
                await self._upload.finish()
            self._upload = None
            if self._name.early(content.kind) is None:
                await bucket.create(name, content, partial(self._copy, name))
                await bucket.remove(self._private_name)
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
        await obstore.copy_async(self._bucket.store, self._private_name, name, overwrite=not atomic)

    async def close(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            await upload.abort()


def described(error: Exception) -> str:
    """First line of obstore's error text, without names and URLs, which may be signed."""
    first, *_ = str(error).splitlines() or [""]
    text = first.rpartition(" - ")[2] if " - " in first else first.partition(": ")[2]
    text = _URL.sub("…", text).partition(": <")[0].rstrip(": ")
    code = _CODE.search(str(error))
    return " ".join(filter(None, (f"{type(error).__name__}:", text[:200], code and code[1])))
