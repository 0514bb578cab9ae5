"""One schema of a real PostgreSQL, as tests of the store use it."""

from __future__ import annotations

from typing import Any

from receiver.stores.postgres import PostgresStore
from tests.support import needed
from tests.support.postgres_schemas import connected
from tests.support.waiting import until


class Server:
    """One schema of a running server.

    Args:
        url: of the server, and a database that may be used.
        schema: its name.
    """

    def __init__(self, url: str, schema: str) -> None:
        self.schema = schema
        # The sessions of this test's stores can be told from all others.
        self.url = f"{url}{'&' if '?' in url else '?'}application_name={schema}"
        self._plain = url

    def store(self, **options: Any) -> PostgresStore:
        """A store on the schema, not yet open."""
        return PostgresStore(self.url, schema=self.schema, **options)

    async def opened(self, **options: Any) -> PostgresStore:
        """A store on the schema."""
        store = self.store(**options)
        await store.open()
        return store

    async def connect(self) -> Any:
        """A connection that is no store's, which finds the schema's tables by their names."""
        connection = await needed.module("asyncpg").connect(self._plain)
        await connection.execute(f"SET search_path = {self.schema}")
        return connection

    async def cut(self) -> int:
        """End every session of this test's stores; answers how many there were."""
        async with connected(self._plain) as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE application_name = $1",
                    self.schema,
                )
            )


async def waits(server: Server) -> None:
    """Wait until a statement of the stores waits for a lock."""
    async with connected(server.url) as connection:

        async def blocked() -> bool:
            return bool(
                await connection.fetchval(
                    "SELECT count(*) > 0 FROM pg_stat_activity "
                    "WHERE application_name = $1 AND wait_event_type = 'Lock'",
                    server.schema,
                )
            )

        await until(blocked)
