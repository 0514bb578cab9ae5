"""The migrator's promises on PostgreSQL, for the tables of inbox and ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from submitter.storage import migrations
from submitter.storage.errors import StorageMismatch
from submitter.storage.postgres_pool import Pool
from tests.support.postgres_schemas import fresh_schema

PACKAGES = ("receiver.stores", "submitter.ledger")


@pytest.fixture
async def place() -> AsyncIterator[tuple[Pool, str]]:
    """A pool, and the name of a schema that does not exist."""
    async with fresh_schema() as (url, schema):
        pool = Pool(url, pooler=False, size=9, max_reads=2)
        yield pool, schema
        await pool.close()


async def execute(pool: Pool, sql: str) -> None:
    """Run statements."""
    async with pool.use() as connection:
        await connection.execute(sql)


async def version(pool: Pool, package: str, schema: str) -> int:
    """The schema version of a package's tables."""
    async with pool.use() as connection:
        return await migrations.postgres_version(connection, package, schema)


async def test_both_migrate_a_new_schema_at_once(place: tuple[Pool, str]) -> None:
    """F43: of each package's migrators one migrates, the others wait; the schema is shared."""
    pool, schema = place
    counts = await asyncio.gather(
        *[migrations.migrate_postgres(pool, package, schema) for package in PACKAGES * 4]
    )
    for package, migrated in zip(PACKAGES, (counts[::2], counts[1::2]), strict=True):
        newest = migrations.scripts(package, "postgres")[-1][0]
        assert sorted(migrated) == [0, 0, 0, newest]
        assert await version(pool, package, schema) == newest


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_server_whose_transactions_are_serializable(
    place: tuple[Pool, str], package: str
) -> None:
    """F43: who waited for the lock sees what was migrated meanwhile, whatever the default is."""
    pool, schema = place
    async with fresh_schema() as (url, _):
        strict = Pool(
            f"{url}?default_transaction_isolation=serializable",
            pooler=False,
            size=4,
            max_reads=1,
        )
        counts = await asyncio.gather(
            *[migrations.migrate_postgres(strict, package, schema) for _ in range(4)]
        )
        await strict.close()
    assert sorted(counts)[:3] == [0, 0, 0]
    assert await version(pool, package, schema) > 0


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_newer_schema_is_refused(
    place: tuple[Pool, str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: both versions are named, and nothing changes."""
    pool, schema = place
    known = migrations.scripts(package, "postgres")
    newest = known[-1][0]
    later = (newest + 1, "CREATE TABLE {schema}.ledger_later ()")
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "scripts", lambda *_: [*known, later])
        assert await migrations.migrate_postgres(pool, package, schema) == len(known) + 1

    for call in (
        migrations.migrate_postgres(pool, package, schema),
        version(pool, package, schema),
    ):
        with pytest.raises(StorageMismatch, match="newer Wavehook") as caught:
            await call
        assert (caught.value.found, caught.value.expected) == (newest + 1, newest)


@pytest.mark.parametrize("package", PACKAGES)
async def test_another_program_s_schema_is_refused(place: tuple[Pool, str], package: str) -> None:
    """F43: a wrong name must not put the tables among another program's."""
    pool, schema = place
    await execute(pool, f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}".song (title text)')

    with pytest.raises(StorageMismatch, match=r"something else.*WAVEHOOK_DATABASE_SCHEMA"):
        await migrations.migrate_postgres(pool, package, schema)

    assert await version(pool, package, schema) == 0
