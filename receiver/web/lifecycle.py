"""Opening and closing of what the app stands on, however its server treats lifespan.

A server runs lifespan once; on serverless platforms it runs never, or at every invocation (F41).
So all parts are opened at the first need, once, and may be opened again after a close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.stores.base import Store
from submitter.errors import LedgerMismatch, LedgerUnavailable


class Dispatcher(Protocol):
    """What the web layer asks of the dispatcher."""

    async def start(self) -> None:
        """Begin to run handlers in the background."""
        ...

    async def stop(self, grace: float) -> None:
        """Claim nothing more; give running handlers `grace` seconds, give back the rest, close."""
        ...

    async def drain(self, limit: int | None, deadline: float | None) -> int:
        """Run what is due, in the caller's time.

        Args:
            limit: dispatches at most; None for all.
            deadline: seconds from now after which nothing more is begun.
        """
        ...


class Ledger(Protocol):
    """What is opened with the store."""

    async def open(self) -> None:
        """Connect; may be called twice. Raises LedgerUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...


class Service(Protocol):
    """Something that runs beside the requests; may be started again after a stop."""

    async def start(self) -> None:
        """Begin; must not keep the first delivery waiting."""
        ...

    async def stop(self) -> None:
        """End within a time limit of its own; also where it was not started."""
        ...


class Lifecycle:
    """Opens store and ledger and starts what runs beside the requests, once; all ends in reverse.

    Args:
        store: the inbox.
        dispatcher: None where no process of ours runs handlers.
        grace: seconds for running handlers at a stop.
        background: the dispatcher runs beside the requests. Where it does not, it is stopped all
            the same: its handlers hold connections.
        ledger: None where there is none.
        services: run wherever requests are served.
        lasting: run only in a process that goes on between requests: one that runs the dispatcher,
            or whose server says when it starts.
        halts: nothing goes on after a reply, whatever the server says.

    Attributes:
        started: all is open, and what runs beside the requests runs.
        closing: a stop has begun.
        lasts: the process goes on between requests, as far as is known.
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
        lasting: Sequence[Service] = (),
        halts: bool = False,
    ) -> None:
        self.started = False
        self.closing = False
        self.lasts = background and not halts
        self._store = store
        self._dispatcher = dispatcher
        self._grace = grace
        self._background = background
        self._ledger = ledger
        self._services = tuple(services)
        self._lasting = tuple(lasting)
        self._halts = halts
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Start because the server says so, also after a stop."""
        self.closing = False
        self.lasts = not self._halts
        await self.ensure()

    async def open(self) -> None:
        """Open store and ledger, and start nothing yet.

        Raises:
            StoreUnavailable: one of them does not open.
            SchemaMismatch: see `Store.open`.
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
        """Start where that has not happened.

        Raises:
            StoreUnavailable: the store does not open, or this is a shutdown.
            SchemaMismatch: see `Store.open`.
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
                for service in self._lasting if self.lasts else ():
                    await service.start()
                undo.pop_all()
            self.started = True

    async def stop(self) -> None:
        """Stop for good, or until the next `begin`."""
        self.closing = True
        async with self._lock, AsyncExitStack() as last:
            self.started = False
            last.push_async_callback(self._close)
            for service in self._services:
                last.push_async_callback(service.stop)
            if self._dispatcher is not None:
                last.push_async_callback(self._dispatcher.stop, self._grace)
            for service in self._lasting:
                last.push_async_callback(service.stop)

    async def _close(self) -> None:
        try:
            if self._ledger is not None:
                await self._ledger.close()
        finally:
            await self._store.close()
