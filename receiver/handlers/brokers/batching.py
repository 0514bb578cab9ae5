"""Batching of concurrent sends: one call to the broker carries the items of many runs."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from receiver.errors import Retry

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class SendBatcher(Generic[Item, Answer]):
    """Queue of items to send, and the calls that are in flight.

    Nothing is delayed to fill a batch. An item is sent at once, together with all others of the
    same moment; if every call is in flight, it is sent as soon as one returns.

    Args:
        send: sends items, and returns an answer or an error for each, in their order; an error
            that it raises is the answer to all.
        max_items: in one call.
        max_calls: in flight at the same time.
        item_size: of an item, in bytes.
        max_bytes: in one call.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_items: int,
        max_calls: int,
        item_size: Callable[[Item], int] = lambda _: 0,
        max_bytes: float = math.inf,
    ) -> None:
        self._send = send
        self._max_items = max_items
        self._max_calls = max_calls
        self._item_size = item_size
        self._max_bytes = max_bytes
        self._queue: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def put(self, item: Item) -> Answer:
        """Send an item in a batch; return its answer, or raise its error.

        If the caller is cancelled before the item was sent, it is not sent.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if len(self._senders) < self._max_calls:
            self._senders.add(asyncio.create_task(self._drain(), name="wavehook-batches"))
        return await future

    async def close(self) -> None:
        """Cancel all calls; every item in the queue or in flight fails with `Retry`."""
        queued, self._queue = self._queue, deque()
        _resolve([future for _, future in queued], [_CLOSED] * len(queued))
        senders = set(self._senders)
        for task in senders:
            task.cancel()
        if senders:
            await asyncio.wait(senders)

    async def _drain(self) -> None:
        try:
            while batch := self._next_batch():
                answers: Sequence[Answer | Exception] = [_CLOSED] * len(batch)
                try:
                    answers = await self._send([item for item, _ in batch])
                except Exception as error:  # noqa: BLE001 - any error is the answer to each run
                    answers = [error] * len(batch)
                finally:
                    _resolve([future for _, future in batch], answers)
        finally:
            # No await since the queue was found empty: the next item starts another task.
            self._senders.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """The items of the next call, without those whose run was cancelled."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        bytes_left = self._max_bytes
        while self._queue and len(batch) < self._max_items:
            item, future = self._queue[0]
            if not future.done():
                bytes_left -= self._item_size(item)
                if batch and bytes_left < 0:
                    break
                batch.append((item, future))
            self._queue.popleft()
        return batch


_CLOSED = Retry("the handler was closed")


def _resolve(
    futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer | Exception]
) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
