"""Every backend, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from receiver.stores.base import Store
from receiver.stores.memory import MemoryStore
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SQLiteStore
from submitter.ledger.base import Ledger
from submitter.ledger.memory import MemoryLedger
from submitter.ledger.postgres import PostgresLedger
from submitter.ledger.sqlite import SQLiteLedger
from tests.support.postgres_schemas import fresh_schema
from tests.support.postgres_server import Server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open, empty store."""
    async with AsyncExitStack() as stack:
        store: Store = MemoryStore()
        if request.param == "sqlite":
            store = SQLiteStore(tmp_path / "inbox.db")
        elif request.param == "postgres":
            url, schema = await stack.enter_async_context(fresh_schema())
            store = PostgresStore(url, schema=schema)
        await store.open()
        yield store
        await store.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A PostgreSQL, and in it a schema for one test."""
    async with fresh_schema() as (url, schema):
        yield Server(url, schema)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open, empty ledger."""
    async with AsyncExitStack() as stack:
        ledger: Ledger = MemoryLedger()
        if request.param == "sqlite":
            ledger = SQLiteLedger(tmp_path / "ledger.db")
        elif request.param == "postgres":
            url, schema = await stack.enter_async_context(fresh_schema())
            ledger = PostgresLedger(url, schema=schema)
        await ledger.open()
        yield ledger
        await ledger.close()
