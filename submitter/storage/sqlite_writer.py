"""SQLite connections of inbox and ledger."""

from __future__ import annotations

import sqlite3
import time


def use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch a file to WAL; SQLite's own busy timeout does not cover two switches at once.

    Args:
        connection: in autocommit mode.
        busy_timeout_s: how long to wait for the other process.

    Raises:
        sqlite3.Error: the switch failed.
    """
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
