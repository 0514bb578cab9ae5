"""One large object on its way into a bucket, in pieces; nothing is seen of it before the last."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import obstore

from submitter.content import Kind

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
