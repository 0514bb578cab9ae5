"""F43 on PostgreSQL: who makes the schema, and programs of different ages on one."""

from __future__ import annotations

import asyncio

import pytest

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import DispatchState, Done
from receiver.stores.postgres import PostgresStore
from tests.support.events import NOW, PLAN, claim, event
from tests.support.postgres_schemas import connected
from tests.support.postgres_server import Server, waits


async def test_stores_that_migrate_at_once(server: Server) -> None:
    """F43: one makes the schema, the others wait for it."""
    stores = [server.store() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))

    receipts = [await store.add(event(), PLAN) for store in stores]

    assert [receipt.duplicate for receipt in receipts] == [False, True, True, True]
    connection = await server.connect()
    assert await connection.fetchval("SELECT array_agg(number ORDER BY number) FROM migration") == [
        1,
        2,
        3,
    ]
    await connection.close()
    for store in stores:
        await store.close()


async def test_another_makes_the_schema_meanwhile(server: Server) -> None:
    """F43: the ledger, which may stand in the same schema and has a lock of its own."""
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"CREATE SCHEMA {server.schema}")
    opening = asyncio.ensure_future(server.opened())
    await waits(server)

    await transaction.commit()
    store = await opening
    assert not (await store.add(event(), PLAN)).duplicate
    await store.close()
    await connection.close()


async def test_a_role_that_may_not_make_the_schema(server: Server) -> None:
    """Bad input: the reason, in the server's words."""
    async with connected(server.url) as connection:
        await connection.execute(f"CREATE ROLE {server.schema}")
        url = f"{server.url}&role={server.schema}"
        store = PostgresStore(url, schema=server.schema)
        try:
            with pytest.raises(StoreUnavailable, match="permission denied"):
                await store.open()
        finally:
            await connection.execute(f"DROP ROLE {server.schema}")


async def test_a_newer_schema_is_refused(server: Server) -> None:
    """F43: an old version says what to do, and changes nothing."""
    await (await server.opened()).close()
    connection = await server.connect()
    await connection.execute("INSERT INTO migration (number) VALUES (4)")

    with pytest.raises(SchemaMismatch, match="newer Wavehook") as caught:
        await server.opened()

    assert (caught.value.found, caught.value.expected) == (4, 3)
    await connection.close()


async def test_a_version_runs_on_beside_a_newer_one(server: Server) -> None:
    """F43: what a later migration adds does not disturb whoever was there before it."""
    store = await server.opened()
    await store.add(event(), PLAN)
    (lease, *_) = await claim(store)
    await store.events()
    connection = await server.connect()
    for table in ("event", "dispatch", "attempt", "pause", "rate"):
        await connection.execute(f"ALTER TABLE {table} ADD COLUMN later TEXT DEFAULT 'x'")
    await connection.close()

    assert await store.find([event().id]) == {event().id: event()}
    assert (await store.events())[0].dispatches["keep"] is DispatchState.LEASED
    assert await store.settle(lease.dispatch, "a", Done(), NOW)
    assert not (await store.add(event("two"), PLAN)).duplicate
    assert len(await claim(store)) == 1
    assert len(await store.attempts(event().id)) == 1
    await store.close()


async def test_a_schema_of_something_else_is_refused(server: Server) -> None:
    """F43: a wrong name must not put our tables among another program's."""
    connection = await server.connect()
    await connection.execute(f"CREATE SCHEMA {server.schema}")
    await connection.execute("CREATE TABLE ledger_submission (id TEXT)")
    await connection.execute("CREATE TABLE song (title TEXT)")
    with pytest.raises(SchemaMismatch, match="something else"):
        await server.opened()

    await connection.execute("DROP TABLE song")
    store = await server.opened()
    await store.open()
    await store.close()
    await connection.close()
