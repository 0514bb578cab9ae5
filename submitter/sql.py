"""SQL as it lies in files, and what SQLite wants done with it."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

STRICT_SINCE = (3, 37)
"""The first SQLite with STRICT tables."""


def migrations(package: str, engine: str) -> list[tuple[int, str]]:
    """All migrations of one engine as (number, SQL), in order.

    Args:
        package: whose folder `sql` holds them.
        engine: the folder below that.
    """
    return sorted(
        (int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in (files(package) / "sql" / engine).iterdir()
        if entry.name[:4].isdigit()
    )


def statements(package: str, engine: str) -> dict[str, str]:
    """The named statements of one engine; the arguments are those of `migrations`."""
    text = (files(package) / "sql" / engine / "queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {
        name: sql.strip().removesuffix(";")
        for name, sql in zip(parts[1::2], parts[2::2], strict=True)
    }


def split(script: str) -> list[str]:
    """Statements of a script for SQLite; `executescript` would commit the transaction around it."""
    # PostgreSQL's SQL lies in files too, and need not wait for it.
    import sqlite3

    if sqlite3.sqlite_version_info < STRICT_SINCE:
        script = script.replace(") STRICT, WITHOUT ROWID", ") WITHOUT ROWID")
        script = script.replace(") STRICT", ")")
    found, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def use_wal(connection: sqlite3.Connection, busy: float) -> None:
    """Switch to WAL; two processes that do it at once get no help from the busy handler.

    Args:
        connection: in autocommit mode.
        busy: seconds to wait for the other one.

    Raises:
        sqlite3.Error: it cannot be done.
    """
    import sqlite3

    deadline = time.monotonic() + busy
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
