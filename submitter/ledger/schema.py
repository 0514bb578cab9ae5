"""The SQLite file: made, recognised, and brought up to date by numbered, additive migrations.

By default it is the receiver's own file, which either of the two may make first. All tables of
the ledger begin with `ledger_`, and each of the two leaves the other's alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from submitter import sql
from submitter.errors import LedgerMismatch

BUSY = 10.0
"""Seconds to wait for another process's write."""

_INBOX = {"event", "dispatch", "attempt"}


def statements() -> dict[str, str]:
    """The named statements."""
    return sql.statements("submitter.ledger", "sqlite")


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
        newest = _migrations()[-1][0]
        if _version(connection, newest) == newest:
            return
        sql.use_wal(connection, BUSY)
        connection.execute("BEGIN IMMEDIATE")
        # Left by an error, the transaction ends with the connection.
        _migrate(connection, newest)
        connection.execute("COMMIT")


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, to a file that is prepared; for use on any thread."""
    connection = _connect(path)
    try:
        sql.use_wal(connection, BUSY)
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


def _migrations() -> list[tuple[int, str]]:
    return sql.migrations("submitter.ledger", "sqlite")


def _migrate(connection: sqlite3.Connection, newest: int) -> None:
    found = _version(connection, newest)
    for number, script in _migrations():
        if number > found:
            for statement in sql.split(script):
                connection.execute(statement)
    connection.execute(
        "INSERT OR REPLACE INTO ledger_schema (one, version) VALUES (1, ?)", [newest]
    )


def _version(connection: sqlite3.Connection, newest: int) -> int:
    """The number of the last migration that was applied; 0 before the first."""
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
        )
    }
    if "ledger_schema" in tables:
        (found,) = connection.execute("SELECT version FROM ledger_schema").fetchone()
        if found > newest:
            raise LedgerMismatch(
                f"the ledger has schema version {found}, this program works with {newest}: it "
                "was made by a newer Wavehook; upgrade this one, or name another database",
                found=found,
                expected=newest,
            )
        return int(found)
    (inbox,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and not (inbox and tables >= _INBOX):
        raise LedgerMismatch(
            "the file is a SQLite database of something else; name another file in "
            "WAVEHOOK_DATABASE",
            found=0,
            expected=newest,
        )
    return 0
