"""Copies the write-ahead log into the database beside the writer, so that no `add` waits for it.

A checkpoint that the writer runs itself, as SQLite does by default, holds up a whole group. Another
connection copies all but what is written meanwhile; the writer copies that little rest, and its
next transaction begins the log anew (https://www.sqlite.org/wal.html#ckpt).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

EVERY = 1000
"""Requests between two checkpoints."""

BACKSTOP = 16_384
"""Pages of 4 KiB after which the writer does it itself: large bodies, or a thread that fails."""

_COPY = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpointer:
    """Counts what the writer does, and has it copied now and then.

    Args:
        connect: opens a connection of its own; called on its thread.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wavehook-checkpoint")
        self._copying: Future[None] | None = None
        self._count = 0

    def after(self, writer: sqlite3.Connection, requests: int) -> None:
        """Called by the writer after each of its transactions, with its number of requests."""
        self._count += requests
        if self._copying is None:
            if self._count >= EVERY:
                self._count = 0
                self._copying = self._thread.submit(self._copy)
        elif self._copying.done():
            self._copying = None
            # What was asked is committed: a checkpoint that fails is tried again by the next one.
            with contextlib.suppress(sqlite3.Error):
                writer.execute(_COPY)

    def close(self) -> None:
        """End the thread; called by the writer as its last."""
        self._thread.submit(self._disconnect)
        self._thread.shutdown()

    def _copy(self) -> None:
        # As above; and the writer's own checkpoint stands behind it.
        with contextlib.suppress(sqlite3.Error):
            if self._connection is None:
                self._connection = self._connect()
            self._connection.execute(_COPY)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
