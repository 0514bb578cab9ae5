"""Stores and ledgers that are open for a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from submitter.ledger.postgres import PostgresLedger


class _Port(Protocol):
    async def open(self) -> None: ...
    async def close(self) -> None: ...


_P = TypeVar("_P", bound=_Port)


@asynccontextmanager
async def opened(port: _P) -> AsyncIterator[_P]:
    """A store or ledger, open until the end of the block."""
    await port.open()
    try:
        yield port
    finally:
        await port.close()


def postgres_ledger(
    url: str, schema: str, **options: Any
) -> AbstractAsyncContextManager[PostgresLedger]:
    """An open ledger in a schema."""
    return opened(PostgresLedger(url, schema=schema, **options))
