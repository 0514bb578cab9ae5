"""One thread that owns the writing connection; whatever waits together commits together.

A commit costs an fsync, so everything that was asked while the last one ran shares the next. Each
kind of work is a bulk function over all its requests of one group: a statement that writes many
rows gives up the interpreter lock once, not once a row, and so takes little from the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from receiver.errors import StoreUnavailable
from receiver.stores.checkpoint import Checkpointer

A = TypeVar("A")
R = TypeVar("R")
Bulk = Callable[[sqlite3.Connection, list[A]], Sequence[R]]
"""Does all requests of one kind inside a transaction; one answer each, in order."""

GROUP = 1024
"""Requests of one transaction, about, so that the first need not wait for all of a flood."""


HAND_OVER = 32
"""Requests after which a long turn hands over before its end, so that both threads have work."""


class Request:
    """One request, and the future of its answer."""

    __slots__ = ("answer", "argument", "bulk", "error", "future")

    def __init__(self, bulk: Bulk[Any, Any], argument: Any, future: asyncio.Future[Any]) -> None:
        self.bulk = bulk
        self.argument = argument
        self.future = future
        self.answer: Any = None
        self.error: Exception | None = None


class GroupCommit:
    """The writer thread.

    Args:
        connect: opens the writing connection, in autocommit mode; called on the thread, and
            again after a failure.
        checkpointer: told of every transaction, and closed with the thread.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], checkpointer: Checkpointer
    ) -> None:
        self._connect = connect
        self._checkpointer = checkpointer
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[list[Request] | None] = SimpleQueue()
        self._turn: list[Request] = []
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wavehook-writer", daemon=True)
        self._thread.start()

    def submit(self, bulk: Bulk[A, R], argument: A) -> asyncio.Future[R]:
        """Have a request done in the next transaction.

        The future fails with StoreUnavailable where the database would not do it, and with
        whatever `bulk` raised for this request alone.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable("the store is closed"))
        else:
            # One hand-over for each turn of the event loop: waking the thread for each request
            # makes both of them wait for the interpreter lock.
            if not self._turn:
                self._loop.call_soon(self._hand_over)
            self._turn.append(Request(bulk, argument, future))
            if len(self._turn) == HAND_OVER:
                self._hand_over()
        return future

    def _hand_over(self) -> None:
        if self._turn:
            turn, self._turn = self._turn, []
            self._queue.put(turn)

    async def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        more = True
        while more:
            requests, more = self._next()
            if requests:
                self._do(requests)
                # The loop may be closed by now where the process is ending.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, requests)
                if self._connection is not None:
                    self._checkpointer.after(self._connection, len(requests))
        self._disconnect()
        self._checkpointer.close()

    def _next(self) -> tuple[list[Request], bool]:
        """Wait for requests, and take all that have come since."""
        requests: list[Request] = []
        turn = self._queue.get()
        with contextlib.suppress(Empty):
            while turn is not None:
                requests += turn
                if len(requests) >= GROUP:
                    break
                turn = self._queue.get_nowait()
        return requests, turn is not None

    def _do(self, requests: list[Request]) -> None:
        try:
            self._transact(requests)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            self._undo(error)
            # Locked, full, read-only, gone: nobody's fault, and as true for each alone.
            if len(requests) > 1 and not isinstance(error, sqlite3.OperationalError):
                for request in requests:
                    self._do([request])
                return
            if isinstance(error, sqlite3.Error):
                error = StoreUnavailable(f"the database did not take it: {error}")
            for request in requests:
                request.error = error

    def _transact(self, requests: list[Request]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        kinds: dict[Bulk[Any, Any], list[Request]] = {}
        for request in requests:
            kinds.setdefault(request.bulk, []).append(request)
        self._connection.execute("BEGIN IMMEDIATE")
        for bulk, same in kinds.items():
            answers = bulk(self._connection, [request.argument for request in same])
            for request, answer in zip(same, answers, strict=True):
                request.answer = answer
        self._connection.execute("COMMIT")

    def _undo(self, error: Exception) -> None:
        """Leave no transaction open; after an error of the database, no connection either."""
        if isinstance(error, sqlite3.Error):
            self._disconnect()
        elif self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _resolve(requests: list[Request]) -> None:
    for request in requests:
        # Whoever asked may have been cancelled since; what was asked is done all the same.
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.answer)
