"""Whatever is asked while a statement runs shares the next one, and with it one commit."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from receiver.errors import StoreUnavailable
from submitter.storage.postgres_pool import Connection, Link, Lost

A = TypeVar("A")
R = TypeVar("R")
Bulk = Callable[[Connection, list[A]], Awaitable[Sequence[R]]]
"""Does all requests of one kind in one transaction; one answer each, in order."""

GROUP = 512
"""Requests of one statement at most."""

WEIGHT = 4 * 1024 * 1024
"""Bytes of bodies of one statement, about."""

TRIES = 3
"""How often a request is tried that met another transaction which wanted the same rows, or a
connection that had ended while nobody used it."""


class _Request:
    __slots__ = ("argument", "bulk", "future", "weight")

    def __init__(
        self, bulk: Bulk[Any, Any], argument: Any, future: asyncio.Future[Any], weight: int
    ) -> None:
        self.bulk = bulk
        self.argument = argument
        self.future = future
        self.weight = weight


class Lane:
    """One connection's worth of work, a group after the other.

    Args:
        link: where the connection comes from.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[_Request] = deque()
        self._group: list[_Request] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, bulk: Bulk[A, R], argument: A, weight: int = 0) -> asyncio.Future[R]:
        """Have a request done with the next group.

        The future fails with StoreUnavailable where the server would not do it, and with whatever
        was raised for this request alone.

        Args:
            bulk: does it, together with others of its kind.
            argument: what it is given.
            weight: bytes that it sends, where they are many.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(bulk, argument, future, weight))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="wavehook-group")
            self._task.add_done_callback(self._ended)
        return future

    async def close(self) -> None:
        """Finish what was submitted; nothing may be submitted after it."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        while self._waiting:
            self._group = self._next()
            await self._do(self._group)
        self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # The process is ending: nobody may wait for what is not done.
            self._task = None
            for request in (*self._group, *self._waiting):
                request.future.cancel()
            self._waiting.clear()

    def _next(self) -> list[_Request]:
        """The next requests of one kind."""
        group: list[_Request] = []
        others: list[_Request] = []
        weight = 0
        bulk = self._waiting[0].bulk
        while self._waiting and len(group) < GROUP and (not group or weight < WEIGHT):
            request = self._waiting.popleft()
            if request.bulk == bulk:
                group.append(request)
                weight += request.weight
            else:
                others.append(request)
        self._waiting.extendleft(reversed(others))
        return group

    async def _do(self, group: list[_Request]) -> None:
        try:
            answers = await self._ask(group)
        except StoreUnavailable as error:
            # Nobody's fault, and as true for each alone.
            _fail(group, error)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            if len(group) > 1:
                for request in group:
                    await self._do([request])
            else:
                known = isinstance(error, self._link.errors)
                _fail(group, self._link.word(error) if known else error)
        else:
            for request, answer in zip(group, answers, strict=True):
                # Whoever asked may have been cancelled since; what was asked is done all the same.
                if not request.future.done():
                    request.future.set_result(answer)

    async def _ask(self, group: list[_Request]) -> Sequence[Any]:
        arguments = [request.argument for request in group]
        for _ in range(TRIES - 1):
            with contextlib.suppress(Lost, *self._link.clashes):
                async with self._link.use() as connection:
                    return await group[0].bulk(connection, arguments)
        async with self._link.use() as connection:
            return await group[0].bulk(connection, arguments)


def _fail(group: Sequence[_Request], error: Exception) -> None:
    for request in group:
        if not request.future.done():
            request.future.set_exception(error)
