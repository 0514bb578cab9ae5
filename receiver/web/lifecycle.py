"""Opening and closing of what the app stands on, however its server treats lifespan.

A server runs lifespan once; on serverless platforms it runs never, or at every invocation (F41).
So all parts are opened at the first need, once, and may be opened again after a close.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from receiver.errors import StoreUnavailable
from receiver.stores.base import Store


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


class Lifecycle:
    """Opens the store and starts the dispatcher once; stops them in the other order.

    Args:
        store: the inbox.
        dispatcher: None where no process of ours runs handlers.
        grace: seconds for running handlers at a stop.
        background: the dispatcher runs beside the requests. Where it does not, it is stopped all
            the same: its handlers hold connections.
    """

    def __init__(
        self, store: Store, dispatcher: Dispatcher | None, grace: float, *, background: bool
    ) -> None:
        self.started = False
        self.closing = False
        self._store = store
        self._dispatcher = dispatcher
        self._grace = grace
        self._background = background
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Start because the server says so, also after a stop."""
        self.closing = False
        await self.ensure()

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
            await self._store.open()
            try:
                if self._dispatcher is not None and self._background:
                    await self._dispatcher.start()
            except BaseException:
                await self._store.close()
                raise
            self.started = True

    async def stop(self) -> None:
        """Stop for good, or until the next `begin`."""
        self.closing = True
        async with self._lock:
            self.started = False
            try:
                if self._dispatcher is not None:
                    await self._dispatcher.stop(self._grace)
            finally:
                await self._store.close()
