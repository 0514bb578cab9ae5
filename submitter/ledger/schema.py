"""The SQLite file: made, recognised, and brought up to date by numbered, additive migrations.

By default it is the receiver's own file, which either of the two may make first. All tables of
the ledger begin with `ledger_`, and each of the two leaves the other's alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from submitter.errors import LedgerMismatch
from submitter.storage import migrations
from submitter.storage.errors import StorageMismatch
from submitter.storage.sqlite_writer import use_wal

BUSY = 10.0
"""Seconds to wait for another process's write."""

PACKAGE = "submitter.ledger"


def statements() -> dict[str, str]:
    """The named statements."""
    return migrations.statements(PACKAGE, "sqlite")


def prepare(path: Path) -> None:
    """Make the file where there is none, and bring its schema up to date.

    Raises:
        LedgerMismatch: it belongs to something else, or a newer version made it.
        sqlite3.Error: it cannot be opened, or is no database.
    """
    # Inputs hold prompts: a new file, and with it its log, is for its owner alone.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(path)) as connection:
        # What is not ours is left as it is, so this stands before the switch to WAL.
        try:
            if not migrations.pending_sqlite(connection, PACKAGE, str(path)):
                return
            use_wal(connection, BUSY)
            migrations.migrate_sqlite(connection, PACKAGE, str(path))
        except StorageMismatch as error:
            raise LedgerMismatch(str(error), error.found, error.expected) from None


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, to a file that is prepared; for use on any thread."""
    connection = _connect(path)
    try:
        use_wal(connection, BUSY)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # `mode=rw`: a file that somebody removed is not made anew, empty and for all to read.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
    )
