"""Numbered, additive migrations; the schema's version is the number of the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.errors import SchemaMismatch
from submitter import sql

if TYPE_CHECKING:
    import sqlite3

_STRANGERS = "SELECT count(*) FROM sqlite_schema WHERE tbl_name NOT GLOB 'ledger_*'"
"""The submitter's ledger may be in the file before the inbox."""


def migrations(engine: str) -> list[tuple[int, str]]:
    """All migrations of one engine as (number, SQL), in order."""
    return sql.migrations("receiver.stores", engine)


def statements(engine: str) -> dict[str, str]:
    """The named statements of one engine."""
    return sql.statements("receiver.stores", engine)


def migrate_sqlite(connection: sqlite3.Connection) -> int:
    """Bring a SQLite database up to date; two processes at once: one does it, the other waits.

    Returns:
        The number of migrations that were applied.

    Raises:
        SchemaMismatch: a newer version made it, or it is not Wavehook's.
    """
    known = migrations("sqlite")
    newest = known[-1][0]
    if _version(connection, newest) == newest:
        return 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection, newest)
        if found == 0 and connection.execute(_STRANGERS).fetchone()[0]:
            raise SchemaMismatch(
                "the file is a SQLite database of something else; name another file in "
                "WAVEHOOK_DATABASE",
                found=0,
                expected=newest,
            )
        pending = [script for number, script in known if number > found]
        for script in pending:
            for statement in sql.split(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return len(pending)


def _version(connection: sqlite3.Connection, newest: int) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > newest:
        raise SchemaMismatch(
            f"the database has schema version {found}, this program works with {newest}: "
            "it was made by a newer Wavehook; upgrade this one, or name another database",
            found=found,
            expected=newest,
        )
    return found
