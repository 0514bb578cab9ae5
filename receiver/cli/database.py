"""Opening the inbox for a command that looks into it or changes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from receiver.config import Settings
from receiver.database import ledger_of, open_store, there
from receiver.errors import SchemaMismatch, WavehookError
from receiver.event import Event
from receiver.stores.base import Store
from submitter.cli.run import plain
from submitter.errors import LedgerMismatch
from submitter.ledger.base import Ledger

PURGED = "its body was purged; there is nothing left to hand out"

T = TypeVar("T")


@asynccontextmanager
async def existing(settings: Settings) -> AsyncIterator[Store]:
    """The store, open; a database that is not there is not made.

    Raises:
        WavehookError: there is none; says where it was looked for.
    """
    if not await there(settings):
        path = settings.database_path
        where = f"database at {path}" if path else f"inbox in {settings.database_label}"
        raise WavehookError(
            f"there is no {where}; `wavehook serve` makes it at its first start, and --database "
            "names another"
        )
    store = open_store(settings)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """The ledger, open.

    Raises:
        SchemaMismatch: another version made it.
        LedgerUnavailable: it cannot be opened.
    """
    found = ledger_of(settings)
    try:
        await found.open()
    except LedgerMismatch as error:
        raise SchemaMismatch(str(error), error.found, error.expected) from None
    try:
        yield found
    finally:
        await found.close()


def with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` on the store that is there."""

    async def run() -> T:
        async with existing(settings) as store:
            return await work(store)

    return asyncio.run(run())


async def stored(store: Store, event_id: str) -> Event:
    """The event of this id.

    Raises:
        WavehookError: there is none.
    """
    event = await store.event(event_id)
    if event is None:
        raise WavehookError(f"there is no event {plain(event_id)}; `wavehook events` lists them")
    return event
