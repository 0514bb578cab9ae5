"""One event loop for the app, whatever loops its requests come from (F41).

A server has one loop, and says so by running lifespan. Some platforms bring a new loop with every
request, while connections, locks and the clients of handlers belong to the loop that made them.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, run_coroutine_threadsafe, wrap_future
from collections.abc import Awaitable, Callable
from threading import Lock, Thread
from typing import Protocol, TypeVar

from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")


class App(Protocol):
    """An ASGI app that can be ended without lifespan."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...


class OneLoop:
    """Serves each of two apps on one event loop, so that neither meets another.

    The first loop that runs lifespan is served where it is. All others may be gone after the
    reply: what comes from them goes to a loop in a thread of ours, which outlives them.

    Args:
        make: makes an app, at the first need.
    """

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._lock = Lock()
        self._home: AbstractEventLoop | None = None
        self._app: App | None = None
        self._elsewhere: _Elsewhere | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        here = asyncio.get_running_loop()
        if here is not self._home and not self._moves_in(here, scope):
            await self._away().serve(scope, receive, send)
            return
        assert self._app is not None  # noqa: S101 - for the type checker: made with the home
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End the thread and what was opened in it; the next request from elsewhere begins anew."""
        with self._lock:
            elsewhere, self._elsewhere = self._elsewhere, None
        if elsewhere is not None:
            elsewhere.close()

    def _moves_in(self, loop: AbstractEventLoop, scope: Scope) -> bool:
        with self._lock:
            if self._home is None and scope["type"] == "lifespan":
                self._app, self._home = self._make(), loop
            return loop is self._home

    def _away(self) -> _Elsewhere:
        with self._lock:
            if self._elsewhere is None:
                self._elsewhere = _Elsewhere(self._make())
            return self._elsewhere


class _Elsewhere:
    """An app on a loop of its own; a daemon, so that it keeps no process from ending."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="wavehook-loop", daemon=True)
        self._thread.start()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        theirs = asyncio.get_running_loop()

        async def received() -> Message:
            return await _on(theirs, receive())

        async def sent(message: Message) -> None:
            await _on(theirs, send(message))

        await _on(self._loop, self._app(scope, received, sent))

    def close(self) -> None:
        run_coroutine_threadsafe(self._app.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _on(loop: AbstractEventLoop, work: Awaitable[T]) -> T:
    """Await something on another loop; who is cancelled here cancels it there."""

    async def there() -> T:
        return await work

    return await wrap_future(run_coroutine_threadsafe(there(), loop))
