"""What the benches on PostgreSQL share: a server, a schema of their own, and settings for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from tests.bench.servers import Server, serve
from tests.support.postgres_schemas import connected, fresh_schema

KEY = Fernet.generate_key().decode()


@dataclass(frozen=True, slots=True)
class Database:
    """One schema of the server.

    Attributes:
        url: of the server.
        schema: its name.
    """

    url: str
    schema: str

    @property
    def environ(self) -> dict[str, str]:
        """The settings of a receiver on it."""
        return {
            "WAVEHOOK_DATABASE": self.url,
            "WAVEHOOK_DATABASE_SCHEMA": self.schema,
            "WAVEHOOK_SEAL_KEYS": KEY,
        }

    def serve(self, folder: Path, dispatch: str = "external") -> AbstractContextManager[Server]:
        """`wavehook serve` on it."""
        return serve(folder, dispatch, self.url, **self.environ)

    def execute(self, sql: str) -> None:
        """Run statements on its tables."""

        async def run() -> None:
            async with connected(self.url) as connection:
                await connection.execute(f"SET search_path = {self.schema}")
                await connection.execute(sql)

        asyncio.run(run())


@contextmanager
def database() -> Iterator[Database]:
    """A schema that is not there yet; removed at the end."""
    with asyncio.Runner() as runner:
        made = fresh_schema()
        url, schema = runner.run(made.__aenter__())
        try:
            yield Database(url, schema)
        finally:
            runner.run(made.__aexit__(None, None, None))
