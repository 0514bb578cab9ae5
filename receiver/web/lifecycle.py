"""Opening and closing of store, ledger, dispatcher and services around the requests.

A server runs the ASGI lifespan once; serverless platforms run it never, or for every invocation.
So everything is opened by the first request that needs it, once, and can be opened again after it
was closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.stores.base import Store
from submitter.errors import LedgerMismatch, LedgerUnavailable

if TYPE_CHECKING:
    from receiver.dispatch.dispatcher import Dispatcher
    from submitter.ledger.base import Ledger


class Service(Protocol):
    """A background task beside the requests; it can be started again after a stop."""

    async def start(self) -> None:
        """Start without keeping the first delivery waiting."""
        ...

    async def stop(self) -> None:
        """Stop within a time limit of its own; allowed without a start."""
        ...


class Lifecycle:
    """Starts all parts once, in order, and stops them in reverse.

    Args:
        store: the inbox.
        dispatcher: None if this process runs no handlers.
        grace: seconds that running handlers have at a stop.
        background: run the dispatcher beside the requests. It is stopped even if this is false,
            because its handlers hold connections.
        ledger: opened with the store; None to open the store alone.
        services: run wherever requests are served.
        long_running: services that run only in a process that keeps running between requests: one
            that runs the dispatcher, or whose server runs the lifespan.
        freezes: the platform freezes the process after a response, even if it runs the lifespan.

    Attributes:
        started: everything is open and running.
        closing: a stop has begun.
        keeps_running: the process runs on between requests, as far as is known.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher | None,
        grace: float,
        *,
        background: bool,
        ledger: Ledger | None = None,
        services: Sequence[Service] = (),
        long_running: Sequence[Service] = (),
        freezes: bool = False,
    ) -> None:
        self.started = False
        self.closing = False
        self.keeps_running = background and not freezes
        self._store = store
        self._dispatcher = dispatcher
        self._grace = grace
        self._background = background
        self._ledger = ledger
        self._services = tuple(services)
        self._long_running = tuple(long_running)
        self._freezes = freezes
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Start for the lifespan; allowed after a stop."""
        self.closing = False
        self.keeps_running = not self._freezes
        await self.ensure()

    async def open(self) -> None:
        """Open store and ledger, and start nothing yet.

        Raises:
            StoreUnavailable: one of them cannot be opened.
            SchemaMismatch: a newer version made the database.
        """
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._store.close)
            await self._store.open()
            try:
                if self._ledger is not None:
                    await self._ledger.open()
            except LedgerMismatch as error:
                raise SchemaMismatch(str(error), error.found, error.expected) from error
            except LedgerUnavailable as error:
                raise StoreUnavailable(str(error)) from error
            undo.pop_all()

    async def ensure(self) -> None:
        """Start everything unless it is started.

        Raises:
            StoreUnavailable: the database cannot be opened, or the receiver is shutting down.
            SchemaMismatch: a newer version made the database.
        """
        if self.started:
            return
        async with self._lock:
            if self.closing:
                raise StoreUnavailable("the receiver is shutting down")
            if self.started:
                return
            await self.open()
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self._close)
                for service in self._services:
                    undo.push_async_callback(service.stop)
                    await service.start()
                if self._dispatcher is not None and self._background:
                    await self._dispatcher.start()
                for service in self._long_running if self.keeps_running else ():
                    await service.start()
                undo.pop_all()
            self.started = True

    async def stop(self) -> None:
        """Stop everything, for good or until the next `begin`."""
        self.closing = True
        async with self._lock, AsyncExitStack() as last:
            self.started = False
            last.push_async_callback(self._close)
            for service in self._services:
                last.push_async_callback(service.stop)
            if self._dispatcher is not None:
                last.push_async_callback(self._dispatcher.stop, self._grace)
            for service in self._long_running:
                last.push_async_callback(service.stop)

    async def _close(self) -> None:
        try:
            if self._ledger is not None:
                await self._ledger.close()
        finally:
            await self._store.close()
