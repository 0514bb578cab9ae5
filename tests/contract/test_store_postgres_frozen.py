"""F41 on PostgreSQL: a process that stood still, and connections that ended or were forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.event import Done
from receiver.stores.postgres import PostgresStore
from submitter.storage.postgres_pool import MAX_IDLE_S
from tests.support.events import NOW, PLAN, claim, event
from tests.support.postgres_server import Server
from tests.support.proxy import Proxy, proxy


@asynccontextmanager
async def behind(
    server: Server, clock: Callable[[], float] = lambda: NOW, **options: Any
) -> AsyncIterator[tuple[Proxy, PostgresStore]]:
    """A store that reaches its server through a network; each of its kinds of work is done once."""
    async with proxy(server.url) as network:
        store = PostgresStore(
            network.url, schema=server.schema, local=clock, listen=False, **options
        )
        await store.open()
        assert not (await store.add(event(), PLAN)).duplicate
        await store.ping()
        assert await store.last_seq() == 1
        yield network, store
        await store.close()


@pytest.mark.parametrize("pooler", [False, True])
async def test_connections_that_ended_unnoticed(server: Server, pooler: bool) -> None:
    """A request that meets nothing but dead connections is done on others, and nobody is told."""
    async with behind(server, pooler=pooler) as (network, store):
        # Each in the moment of a cut: no event loop has turned to hear of it.
        network.cut()
        assert not (await store.add(event("two"), PLAN)).duplicate
        network.cut()
        first, _ = await claim(store)
        network.cut()
        assert await store.last_seq() == 2
        network.cut()
        assert await store.settle(first.dispatch, "a", Done(), NOW)


async def test_connections_that_were_forgotten(server: Server) -> None:
    """What lies between answers nothing after a long stand: no delivery waits for it."""
    now = NOW
    async with behind(server, lambda: now, statement_timeout_s=60.0) as (network, store):
        network.silence()
        now += MAX_IDLE_S + 1
        async with asyncio.timeout(20):
            assert not (await store.add(event("two"), PLAN)).duplicate
            assert await store.last_seq() == 2
            assert await claim(store)


async def test_connections_in_use_are_kept(server: Server) -> None:
    """Standing still is what costs a connection, however long the work takes."""
    now = NOW
    async with behind(server, lambda: now) as (network, store):
        before = network.connections
        for number in range(5):
            now += MAX_IDLE_S - 1
            await store.add(event(f"task {number}"), PLAN)
        assert network.connections == before


async def test_who_does_not_listen_has_no_connection_for_it(server: Server) -> None:
    """A function that runs no dispatcher is not woken by others' work."""
    async with behind(server) as (_, store):
        assert store._listener is None
