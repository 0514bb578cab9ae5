"""What there is at an address of PostgreSQL, seen without changing anything."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.stores.migrate import migrations
from receiver.stores.postgres_link import Link
from receiver.stores.postgres_migrate import named, version


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        version: of the inbox's schema; 0 where there is none.
        newest: the one that a start brings it to.
        may_make: this user may make the schema, or tables in it where it is there.
        used: connections of the server's clients.
        most: so many there may be of users who are no superusers.
    """

    version: int
    newest: int
    may_make: bool
    used: int
    most: int


async def look(url: str, schema: str, *, pooler: bool) -> Look:
    """Look for an inbox.

    Args:
        url: as `PostgresStore` takes it.
        schema: where it may be.
        pooler: see `PostgresStore`.

    Raises:
        SchemaMismatch: a newer version made it.
        StoreUnavailable: the server cannot be reached, or does not let us in.
        SettingsError: asyncpg is not installed.
    """
    newest = migrations("postgres")[-1][0]
    link = Link(url, pooler=pooler)
    await link.open()
    try:
        async with link.use() as connection:
            found = await version(connection, schema, newest)
        ((may_make, used, most),) = await link.read(named("room", schema))
        return Look(found, newest, may_make, used, most)
    finally:
        await link.close()
