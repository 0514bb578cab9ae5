"""Open the inbox or the ledger for one command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from receiver.config import Settings
from receiver.database import inbox_exists, open_store, settings_ledger
from receiver.errors import SchemaMismatch, WavehookError
from receiver.event import Event
from receiver.stores.base import Store
from submitter.cli.run import plain
from submitter.errors import LedgerMismatch
from submitter.ledger.base import Ledger

BODY_PURGED = "its body was purged, so handlers cannot run again"

T = TypeVar("T")


@asynccontextmanager
async def store_session(settings: Settings) -> AsyncIterator[Store]:
    """Open the store for a block; a database that does not exist is not created.

    Raises:
        WavehookError: it does not exist; says where it was looked for.
    """
    if not await inbox_exists(settings):
        path = settings.database_path
        where = f"database at {path}" if path else f"inbox in {settings.database_label}"
        raise WavehookError(
            f"there is no {where}; `wavehook serve` creates it at its first start, and --database "
            "names another"
        )
    store = open_store(settings)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def ledger_session(settings: Settings) -> AsyncIterator[Ledger]:
    """Open the ledger for a block.

    Raises:
        SchemaMismatch: another version created it.
        LedgerUnavailable: it cannot be opened.
    """
    found = settings_ledger(settings)
    try:
        await found.open()
    except LedgerMismatch as error:
        raise SchemaMismatch(str(error), error.found, error.expected) from None
    try:
        yield found
    finally:
        await found.close()


def with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` on the existing store, in an event loop of its own."""

    async def run() -> T:
        async with store_session(settings) as store:
            return await work(store)

    return asyncio.run(run())


async def find_event(store: Store, event_id: str) -> Event:
    """The event with this id.

    Raises:
        WavehookError: there is none.
    """
    event = await store.event(event_id)
    if event is None:
        raise WavehookError(f"there is no event {plain(event_id)}; `wavehook events` lists them")
    return event
