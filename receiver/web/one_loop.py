"""One event loop for the app, whichever loops its requests come from.

A server has one loop, on which it also runs the lifespan. Some platforms start a new loop for every
request, but connections, locks and handlers' clients belong to the loop that made them.
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
    """An ASGI app that can be stopped without a lifespan."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        ...

    async def stop(self) -> None:
        """Stop and close everything."""
        ...


class OneLoop:
    """Serves every request on the event loop of one of two apps.

    The loop that first runs a lifespan is the server's: its app runs there. Any other loop may end
    after the response, so requests from those go to a second app, on a loop in its own thread.

    Args:
        make: makes an app, on the first request that needs it.
    """

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._lock = Lock()
        self._server_loop: AbstractEventLoop | None = None
        self._app: App | None = None
        self._thread_app: _ThreadApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        here = asyncio.get_running_loop()
        if here is not self._server_loop and not self._adopt(here, scope):
            await self._thread().serve(scope, receive, send)
            return
        assert self._app is not None  # noqa: S101 - made with the server loop
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Stop the thread and its app; a later request starts them again."""
        with self._lock:
            thread_app, self._thread_app = self._thread_app, None
        if thread_app is not None:
            thread_app.close()

    def _adopt(self, loop: AbstractEventLoop, scope: Scope) -> bool:
        with self._lock:
            if self._server_loop is None and scope["type"] == "lifespan":
                self._app, self._server_loop = self._make(), loop
            return loop is self._server_loop

    def _thread(self) -> _ThreadApp:
        with self._lock:
            if self._thread_app is None:
                self._thread_app = _ThreadApp(self._make())
            return self._thread_app


class _ThreadApp:
    """An app on its own loop, in a daemon thread, so that the process can exit."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="wavehook-loop", daemon=True)
        self._thread.start()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = asyncio.get_running_loop()

        async def receive_there() -> Message:
            return await _on(caller, receive())

        async def send_there(message: Message) -> None:
            await _on(caller, send(message))

        await _on(self._loop, self._app(scope, receive_there, send_there))

    def close(self) -> None:
        run_coroutine_threadsafe(self._app.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _on(loop: AbstractEventLoop, work: Awaitable[T]) -> T:
    """Await on another loop; a cancellation here is passed on to it."""

    async def awaited() -> T:
        return await work

    return await wrap_future(run_coroutine_threadsafe(awaited(), loop))
