"""Sends what concurrent runs have for one place in one call, and gives each its own answer."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from receiver.errors import Retry

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batches(Generic[Item, Answer]):
    """What waits, and what is on its way.

    Nothing waits for company: an item goes at once, with all that came in the same moment, or as
    soon as one of the calls on their way is back.

    Args:
        send: takes items, and gives an answer or an error for each, in their order; what it
            raises is the answer to all.
        most: items in one call.
        calls: on their way at once.
        size: of an item, in bytes.
        room: bytes in one call; no limit unless given.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: int,
        calls: int,
        size: Callable[[Item], int] = lambda _: 0,
        room: float = math.inf,
    ) -> None:
        self._send = send
        self._most = most
        self._calls = calls
        self._size = size
        self._room = room
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._sending: set[asyncio.Task[None]] = set()

    async def put(self, item: Item) -> Answer:
        """Send an item with others; gives its answer, or raises its error.

        One whose run is cancelled before it was sent is not sent.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._sending) < self._calls:
            self._sending.add(asyncio.create_task(self._work(), name="wavehook-batches"))
        return await future

    async def close(self) -> None:
        """Give up what waits and what is on its way; its runs are to be tried again."""
        waiting, self._waiting = self._waiting, deque()
        _answer([future for _, future in waiting], [_CLOSED] * len(waiting))
        sending = set(self._sending)
        for task in sending:
            task.cancel()
        if sending:
            await asyncio.wait(sending)

    async def _work(self) -> None:
        try:
            while batch := self._take():
                answers: Sequence[Answer | Exception] = [_CLOSED] * len(batch)
                try:
                    answers = await self._send([item for item, _ in batch])
                except Exception as error:  # noqa: BLE001 - whatever it was, each run is told
                    answers = [error] * len(batch)
                finally:
                    _answer([future for _, future in batch], answers)
        finally:
            # In the step that found nothing more: what comes next starts another.
            self._sending.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """The next call's items, without those whose run has been cancelled."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        room = self._room
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting[0]
            if not future.done():
                room -= self._size(item)
                if batch and room < 0:
                    break
                batch.append((item, future))
            self._waiting.popleft()
        return batch


_CLOSED = Retry("the handler was closed")


def _answer(
    futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer | Exception]
) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
