"""The reading connection, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from submitter.errors import LedgerUnavailable
from submitter.ledger.schema import connect

R = TypeVar("R")


class Reader:
    """Reads what is committed; after a failure, on a new connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wavehook-ledger-reader")

    async def fetch(self, read: Callable[[Any], R], sql: str, values: Mapping[str, Any]) -> list[R]:
        """All rows of a statement, read on the thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._fetch, read, sql, values
            )
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be read now: {error}") from None

    async def close(self) -> None:
        """Finish what was asked, then end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _fetch(self, read: Callable[[Any], R], sql: str, values: Mapping[str, Any]) -> list[R]:
        if self._connection is None:
            self._connection = connect(self._path)
            self._connection.execute("PRAGMA query_only = ON")
        try:
            found = self._connection.execute(sql, values).fetchall()
        except sqlite3.Error:
            self._disconnect()
            raise
        return [read(row) for row in found]

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
