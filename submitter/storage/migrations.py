"""Schema migrations and named SQL statements, read from the .sql files of a package.

A package that stores something has a folder `sql/<engine>/` with numbered, additive migrations
(`0001_inbox.sql`) and the named statements it uses (`queries.sql`; `-- name:` begins each). The
schema version is the number of the last migration. Inbox and ledger may share a database: each has
its own version and leaves the other's tables alone.

Of several processes that migrate at once one does it and the others wait; a schema that a newer
version made is refused. The migrator itself uses these named statements of the package:

- `is_migrated`: whether a version is stored; `schema_version`: which one
- `foreign_tables`: whether another program's tables are there
- `record_migration`: stores the version
- `migration_lock`: on PostgreSQL, makes other processes wait until the transaction ends
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from submitter.storage.errors import StorageConflict, StorageMismatch, StorageValueError

if TYPE_CHECKING:
    import sqlite3

MIGRATION_TIMEOUT_S = 300.0
"""For one migration of a large PostgreSQL schema, and for another process's migration."""

STRICT_SINCE = (3, 37)
"""The first SQLite version with STRICT tables."""

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the server's default is: each statement must see what others committed meanwhile."""

_SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name"
_SCHEMA_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


class MigrationConnection(Protocol):
    """The part of a PostgreSQL connection that the migrator uses."""

    async def fetch(self, query: str, *values: Any) -> Sequence[Any]:
        """Return all rows."""

    async def execute(self, query: str, *values: Any, timeout: float | None = None) -> str:
        """Run one statement, or several without values."""


class MigrationPool(Protocol):
    """The part of `postgres_pool.Pool` that the migrator uses."""

    def use(
        self, begin: str, *, timeout_s: float
    ) -> AbstractAsyncContextManager[MigrationConnection]:
        """A transaction, which is committed at the end of the block."""


def scripts(package: str, engine: str) -> list[tuple[int, str]]:
    """All migrations of a package for one engine as (number, SQL), in order.

    Args:
        package: dotted name; its folder `sql` has the files.
        engine: `sqlite` or `postgres`, a folder below that.
    """
    return sorted(
        (int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in (files(package) / "sql" / engine).iterdir()
        if entry.name[:4].isdigit()
    )


def statements(
    package: str, engine: str, values: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The named statements of a package for one engine.

    Args:
        package: as for `scripts`.
        engine: as for `scripts`.
        values: replaces `{name}` in the statements, such as `postgres_names` of a schema.
    """
    text = (files(package) / "sql" / engine / "queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {
        name: _fill(sql, values or {}).strip().removesuffix(";")
        for name, sql in zip(parts[1::2], parts[2::2], strict=True)
    }


def postgres_names(schema: str) -> dict[str, str]:
    """Spellings of a PostgreSQL schema in SQL: `schema` as an identifier, `name` in a text."""
    return {
        "schema": '"' + schema.replace('"', '""') + '"',
        "name": schema.replace("'", "''"),
    }


def pending_sqlite(
    connection: sqlite3.Connection, package: str, database: str
) -> list[tuple[int, str]]:
    """The migrations that a SQLite file does not have yet; changes nothing.

    Args:
        connection: to the file, in a transaction: all statements must see one state of it.
        package: as for `scripts`.
        database: how error messages name the file.

    Raises:
        StorageMismatch: a newer version or another program made the file.
    """
    named, known = statements(package, "sqlite"), scripts(package, "sqlite")
    newest = known[-1][0]

    def ask(name: str) -> int:
        (found,) = connection.execute(named[name]).fetchone()
        return int(found)

    found = ask("schema_version") if ask("is_migrated") else 0
    _refuse_newer(database, found, newest)
    if not found and ask("foreign_tables"):
        raise StorageMismatch(
            f"{database}: the file is a SQLite database of something else; name another file in "
            "WAVEHOOK_DATABASE",
            found=0,
            expected=newest,
        )
    return [(number, script) for number, script in known if number > found]


def migrate_sqlite(connection: sqlite3.Connection, package: str, database: str) -> int:
    """Bring a SQLite file up to date in one transaction, and return the number of migrations.

    The arguments are those of `pending_sqlite`; the connection is in autocommit mode. After an
    error its transaction is rolled back, and ends with the connection at the latest.

    Raises:
        StorageMismatch: a newer version or another program made the file.
    """
    record = statements(package, "sqlite")["record_migration"]
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated while this one waited for the lock.
        pending = pending_sqlite(connection, package, database)
        for number, script in pending:
            for statement in split(script):
                connection.execute(statement)
            connection.execute(_fill(record, {"version": str(number)}))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return len(pending)


def split(script: str) -> list[str]:
    """Statements of a SQLite script; `executescript` would commit the transaction around it."""
    # Imported here because PostgreSQL's SQL is loaded by this module too.
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


async def postgres_version(connection: MigrationConnection, package: str, schema: str) -> int:
    """The schema version of a package's tables in PostgreSQL; 0 before the first migration.

    Args:
        connection: to the database.
        package: as for `scripts`.
        schema: the schema's name, not quoted.

    Raises:
        StorageMismatch: a newer version made the tables.
    """
    named = statements(package, "postgres", postgres_names(schema))
    if not await _ask(connection, named["is_migrated"]):
        return 0
    found = int(await _ask(connection, named["schema_version"]))
    _refuse_newer(f'the schema "{schema}"', found, scripts(package, "postgres")[-1][0])
    return found


async def migrate_postgres(pool: MigrationPool, package: str, schema: str) -> int:
    """Bring a package's tables in PostgreSQL up to date, and return the number of migrations.

    Args:
        pool: of a role that may create the schema if it is missing, and its tables if they are
            missing or older.
        package: as for `scripts`.
        schema: the schema's name, not quoted.

    Raises:
        StorageMismatch: a newer version or another program made the schema.
        StorageUnavailable: the server cannot be reached, or refuses.
    """
    try:
        return await _migrate_postgres(pool, package, schema)
    except (StorageConflict, StorageValueError):
        # A version without `_SCHEMA_LOCK` created the same schema at the same time.
        return await _migrate_postgres(pool, package, schema)


async def _migrate_postgres(pool: MigrationPool, package: str, schema: str) -> int:
    known = scripts(package, "postgres")
    newest = known[-1][0]
    names = postgres_names(schema)
    named = statements(package, "postgres", names)
    async with pool.use(_BEGIN, timeout_s=MIGRATION_TIMEOUT_S) as connection:
        if await postgres_version(connection, package, schema) == newest:
            return 0
        await connection.execute(named["migration_lock"], timeout=MIGRATION_TIMEOUT_S)
        found = await postgres_version(connection, package, schema)
        if not found:
            await _create_schema(connection, schema)
            if await _ask(connection, named["foreign_tables"]):
                raise StorageMismatch(
                    f'the schema "{schema}" holds tables of something else; name another schema in '
                    "WAVEHOOK_DATABASE_SCHEMA",
                    found=0,
                    expected=newest,
                )
        pending = [(number, script) for number, script in known if number > found]
        for number, script in pending:
            await connection.execute(_fill(script, names), timeout=MIGRATION_TIMEOUT_S)
            await connection.execute(named["record_migration"], number)
    return len(pending)


async def _create_schema(connection: MigrationConnection, schema: str) -> None:
    # Not `IF NOT EXISTS`: that needs the right to create a schema also where it exists.
    if await connection.fetch(_SCHEMA_EXISTS, schema):
        return
    # Inbox and ledger have locks of their own for their tables, but share the schema.
    await connection.execute(_SCHEMA_LOCK, f"wavehook schema {schema}", timeout=MIGRATION_TIMEOUT_S)
    if not await connection.fetch(_SCHEMA_EXISTS, schema):
        await connection.execute(f"CREATE SCHEMA {postgres_names(schema)['schema']}")


async def _ask(connection: MigrationConnection, query: str) -> Any:
    return (await connection.fetch(query))[0][0]


def _fill(sql: str, values: Mapping[str, str]) -> str:
    """SQL with its `{name}` replaced; braces around anything else stay, as in `'{}'`."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), sql)


def _refuse_newer(database: str, found: int, newest: int) -> None:
    if found > newest:
        raise StorageMismatch(
            f"{database} has schema version {found}, this program works with {newest}: it was "
            "made by a newer Wavehook; upgrade this one, or name another database",
            found=found,
            expected=newest,
        )
