"""Brings a schema of PostgreSQL up to date."""

from __future__ import annotations

from functools import cache

from receiver.errors import SchemaMismatch
from receiver.stores.migrate import migrations, statements
from submitter.storage.errors import StorageConflict, StorageValueError
from submitter.storage.postgres_pool import Pool, PostgresConnection

LIMIT = 300.0
"""Seconds for one migration of a large schema, and for another process's."""

_SQL = statements("postgres")


async def migrate_postgres(pool: Pool, schema: str) -> int:
    """Bring a schema up to date; of several processes at once one does it, the others wait.

    Args:
        pool: as a role that may create the schema, if it is missing or older.
        schema: its name.

    Returns:
        The number of migrations that were applied.

    Raises:
        SchemaMismatch: a newer version made it, or it is not Wavehook's.
        StorageUnavailable: the server cannot be reached, or refuses.
    """
    try:
        return await _migrate(pool, schema)
    except (StorageConflict, StorageValueError):
        # The ledger has created the schema meanwhile; it takes a lock of its own.
        return await _migrate(pool, schema)


async def _migrate(pool: Pool, schema: str) -> int:
    known = migrations("postgres")
    newest = known[-1][0]
    async with pool.use() as connection:
        if await version(connection, schema, newest) == newest:
            return 0
    # Another transaction, and the lock as its first statement: what is known of tables from before
    # the wait would be old.
    async with pool.use("BEGIN", timeout_s=LIMIT) as connection:
        await connection.execute(named("lock", schema), timeout=LIMIT)
        found = await version(connection, schema, newest)
        if found == 0:
            await _make(connection, schema, newest)
        pending = [(number, sql) for number, sql in known if number > found]
        for number, sql in pending:
            await connection.execute(_filled(sql, schema), timeout=LIMIT)
            await connection.execute(named("applied", schema), number)
    return len(pending)


@cache
def named(name: str, schema: str) -> str:
    """One of the named statements, for a schema."""
    return _filled(_SQL[name], schema)


async def version(connection: PostgresConnection, schema: str, newest: int) -> int:
    """The number of the last migration of a schema; 0 where there is no inbox.

    Raises:
        SchemaMismatch: a newer version made it.
    """
    if not await connection.fetchval(named("there", schema)):
        return 0
    found = int(await connection.fetchval(named("version", schema)))
    if found > newest:
        raise SchemaMismatch(
            f'the schema "{schema}" has version {found}, this program works with {newest}: '
            "it was made by a newer Wavehook; upgrade this one, or name another schema",
            found=found,
            expected=newest,
        )
    return found


async def _make(connection: PostgresConnection, schema: str, newest: int) -> None:
    if await connection.fetchval(named("strangers", schema)):
        raise SchemaMismatch(
            f'the schema "{schema}" holds tables of something else; name another schema',
            found=0,
            expected=newest,
        )
    if await connection.fetchval(named("empty", schema)):
        await connection.execute(named("make", schema))
    await connection.execute(named("begin", schema))


def _filled(sql: str, schema: str) -> str:
    return sql.replace(":schema", f'"{schema}"').replace(":name", schema)
