"""Batch writer on PostgreSQL: requests that arrive during a transaction share the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from submitter.storage.errors import (
    ConnectionLost,
    StorageConflict,
    StorageUnavailable,
)
from submitter.storage.postgres_pool import Pool, PostgresConnection

A = TypeVar("A")
R = TypeVar("R")
BulkWrite = Callable[[PostgresConnection, list[A]], Awaitable[Sequence[R]]]
"""Does all requests of one kind in one transaction; one answer each, in order."""

MAX_BATCH = 512
"""Requests of one transaction."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Payload of one transaction, about: a flood of large bodies is not one statement of gigabytes."""

MAX_TRIES = 3
"""Tries of a batch that lost its connection, or met another transaction."""


class _WriteRequest:
    __slots__ = ("argument", "bulk", "future", "size")

    def __init__(
        self, bulk: BulkWrite[Any, Any], argument: Any, future: asyncio.Future[Any], size: int
    ) -> None:
        self.bulk = bulk
        self.argument = argument
        self.future = future
        self.size = size

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class BatchWriter:
    """Runs one batch at a time, on one connection.

    A batch whose connection was lost before its COMMIT, or that met another transaction, is done
    again at once, so a bulk function may run more than once. A request that fails for a reason of
    its own fails alone.

    Args:
        pool: lends the connection.
        begin: statements that begin the transaction; without, the bulk function is one statement.
        max_batch: requests of one transaction.
        max_batch_bytes: payload of one transaction, about.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        begin: str | None = None,
        max_batch: int = MAX_BATCH,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        self._pool = pool
        self._begin = begin
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._waiting: deque[_WriteRequest] = deque()
        self._batch: list[_WriteRequest] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, bulk: BulkWrite[A, R], argument: A, size: int = 0) -> asyncio.Future[R]:
        """Have a request done in the next batch; it is done even if its caller is cancelled.

        The future fails with a StorageError, or with the exception of `bulk` for this request.

        Args:
            bulk: does the request, together with others of its kind.
            argument: of the request.
            size: bytes of its payload, if they are many.
        """
        loop = asyncio.get_running_loop()
        if self._task is not None and self._task.get_loop() is not loop:
            # Nobody waits any more for the requests of a loop that is gone.
            self._waiting.clear()
            self._task = None
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append(_WriteRequest(bulk, argument, future, size))
        if self._task is None:
            self._task = loop.create_task(self._run(), name="wavehook-batch")
            self._task.add_done_callback(self._fail_rest)
        return future

    async def close(self) -> None:
        """Wait until all that was submitted is done."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while self._waiting:
            self._batch = self._next_batch()
            await self._do(self._batch)
        self._task = None

    def _fail_rest(self, task: asyncio.Task[None]) -> None:
        """Fail what a cancelled task leaves behind; it may never have begun."""
        if task.cancelled():
            self._task = None
            for request in (*self._batch, *self._waiting):
                request.fail(StorageUnavailable("the program is ending"))
            self._waiting.clear()

    def _next_batch(self) -> list[_WriteRequest]:
        """The next requests of one kind."""
        batch: list[_WriteRequest] = []
        others: list[_WriteRequest] = []
        size = 0
        bulk = self._waiting[0].bulk
        while (
            self._waiting
            and len(batch) < self._max_batch
            and (not batch or size < self._max_batch_bytes)
        ):
            request = self._waiting.popleft()
            if request.bulk == bulk:
                batch.append(request)
                size += request.size
            else:
                others.append(request)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _do(self, batch: list[_WriteRequest]) -> None:
        try:
            answers = await self._transact(batch)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            if isinstance(error, StorageUnavailable) or len(batch) == 1:
                for request in batch:
                    request.fail(error)
            else:
                # One request is to blame.
                for request in batch:
                    await self._do([request])
        else:
            for request, answer in zip(batch, answers, strict=True):
                if not request.future.done():
                    request.future.set_result(answer)

    async def _transact(self, batch: list[_WriteRequest]) -> Sequence[Any]:
        arguments = [request.argument for request in batch]
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                async with self._pool.use(self._begin) as connection:
                    return await batch[0].bulk(connection, arguments)
            except (ConnectionLost, StorageConflict):
                if not tries_left:
                    raise
        raise AssertionError  # pragma: no cover - the last try returns or raises
