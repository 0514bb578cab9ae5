"""Hears what other processes have made claimable, so that nobody waits for the next poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from receiver.errors import StoreUnavailable
from submitter.storage.postgres_pool import Connection

BEAT = 20.0
"""Seconds between two questions to a connection that hears nothing: is it still there?"""

PAUSE = 1.0
"""Seconds between two tries to connect."""


class Listener:
    """A connection that listens, and is made again where it was cut.

    Args:
        connect: makes the connection.
        channel: where the notifications come.
        sender: the payload of our own, which this process knows of.
        wake: called with each of another's, and after a cut, when some may have been missed.
        errors: what the driver raises.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        channel: str,
        sender: str,
        wake: Callable[[], None],
        errors: tuple[type[Exception], ...],
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._sender = sender
        self._wake = wake
        self._errors: tuple[type[Exception], ...] = (*errors, StoreUnavailable)
        self._connection: Connection | None = None
        self._cut = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen from now on; where it fails, polling finds the work until it does not."""
        try:
            await self._listen()
        except self._errors:
            self._cut.set()
        self._task = asyncio.create_task(self._keep(), name="wavehook-listener")

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._drop()

    async def _keep(self) -> None:
        while True:
            try:
                if self._connection is None:
                    await self._listen()
                    self._wake()
                async with asyncio.timeout(BEAT):
                    await self._cut.wait()
                self._drop()
            except TimeoutError:
                await self._ask()
            except self._errors:
                await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        connection = await self._connect()
        self._connection = connection
        self._cut.clear()
        connection.add_termination_listener(lambda _: self._cut.set())
        await connection.add_listener(self._channel, self._heard)

    async def _ask(self) -> None:
        try:
            if self._connection is not None:
                await self._connection.fetchval("SELECT 1")
        except self._errors:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        del connection, pid, channel
        if payload != self._sender:
            self._wake()
