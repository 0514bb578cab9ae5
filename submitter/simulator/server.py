"""HTTP server for an ASGI app, in the running event loop, for as long as a block runs.

uvicorn with two changes: it starts and stops at once, and a response may be a broken connection
(`NoResponse`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

ASGIApp = Any
"""uvicorn and Starlette type the same interface in two ways."""

TICK_INTERVAL_S = 0.1
"""Seconds between uvicorn's own chores, such as the Date header."""

SHUTDOWN_GRACE_S = 5
"""Seconds that open requests have to finish when the server stops."""

CONNECTION_KEY = "wavehook.connection"
"""Key of the connection in the state of a request."""


def abortable(base: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """Extend an HTTP protocol of uvicorn so that `NoResponse` can end its connections.

    Args:
        base: uvicorn's protocol over h11 or httptools.
    """

    class AbortableProtocol(base):  # type: ignore[valid-type, misc]
        # uvicorn copies the state into the scope of every request.
        def __init__(self, *, app_state: dict[str, Any], **more: Any) -> None:
            super().__init__(app_state={**app_state, CONNECTION_KEY: self}, **more)

        def connection_made(self, transport: asyncio.Transport) -> None:
            self._transport = transport
            super().connection_made(transport)

        def end_connection(self, *, reset: bool) -> None:
            if not reset or self._transport.is_closing():
                self._transport.close()
                return
            # A socket that lingers for zero seconds is closed with RST.
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    return AbortableProtocol


class NoResponse(Response):
    """A connection that ends without a response. Works in an app under `serving` only.

    Args:
        reset: end it with RST, not with FIN.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """End the connection, and wait for its end: if this returned before, uvicorn sent 500."""
        scope["state"][CONNECTION_KEY].end_connection(reset=self._reset)
        while (await receive())["type"] != "http.disconnect":
            pass


class _Server(uvicorn.Server):
    """Server that leaves signals to the loop's owner and stops at once, not at the next tick."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set_result(None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, without its fixed wait of 0.1 s."""
        for listening in [*self.servers, *(sockets or ())]:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # One turn of the loop closes idle connections; those that remain have requests.
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + SHUTDOWN_GRACE_S
        while self.server_state.tasks and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self.server_state.tasks, timeout=TICK_INTERVAL_S)
        late = list(self.server_state.tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self.lifespan.shutdown()

    async def main_loop(self) -> None:
        tick = 0
        while not await self.on_tick(tick):
            tick += 1
            await asyncio.wait((self._stopped,), timeout=TICK_INTERVAL_S)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    lifespan: bool = False,
    protocol: type[asyncio.Protocol] = AutoHTTPProtocol,
) -> AsyncIterator[str]:
    """Serve an app while the block runs; yields the server's URL.

    Args:
        app: the ASGI app.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        lifespan: send the app the lifespan events.
        protocol: uvicorn's over h11 or httptools; by default, the faster one that is installed.

    Raises:
        OSError: the port is taken, or the host is not an address of this machine.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=abortable(protocol),
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        # The socket listens already: a request that arrives before the server is up waits.
        yield _url(listener)
    finally:
        server.stop()
        await running


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio sets this on its own listeners only; without it, responses wait 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        # Nothing can connect to "any address"; loopback stands in for it.
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"
