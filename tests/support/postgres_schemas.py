"""Schemas that tests make on a PostgreSQL server, each for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from tests.support import needed


@asynccontextmanager
async def fresh_schema() -> AsyncIterator[tuple[str, str]]:
    """The server's address, and the name of a schema that is not there; removed at the end."""
    url, schema = needed.postgres(), f"test_{uuid4().hex}"
    try:
        yield url, schema
    finally:
        async with connected(url) as connection:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection of the test's own, by the driver that may be missing."""
    connection = await needed.module("asyncpg").connect(url)
    try:
        yield connection
    finally:
        await connection.close()
