"""An ASGI app over real HTTP for as long as a block runs, in the loop that is there."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from submitter.simulator.connection import losable

ASGIApp = Any
"""uvicorn and Starlette type the same interface in two ways."""

TICK = 0.1
"""Seconds between uvicorn's own chores, such as the Date header."""

GRACE = 5
"""Seconds that requests get to end at the stop."""


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the loop, and stops when it is told, not at a next tick."""

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
        """As upstream, without its fixed tenth of a second."""
        for listening in [*self.servers, *(sockets or ())]:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # Idle connections are gone after one turn of the loop; the others have requests.
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + GRACE
        while self.server_state.tasks and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self.server_state.tasks, timeout=TICK)
        late = list(self.server_state.tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self.lifespan.shutdown()

    async def main_loop(self) -> None:
        tick = 0
        while not await self.on_tick(tick):
            tick += 1
            await asyncio.wait((self._stopped,), timeout=TICK)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    lifespan: bool = False,
    protocol: type[asyncio.Protocol] = AutoHTTPProtocol,
) -> AsyncIterator[str]:
    """Serve an app; gives the URL where it is reached.

    Args:
        app: the ASGI app.
        host: where to listen.
        port: where to listen; 0 for a free one.
        lifespan: whether the app wants to be told of start and stop.
        protocol: uvicorn's over h11 or httptools; by default, the faster one that is installed.

    Raises:
        OSError: the port is taken, or the host is not ours.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=losable(protocol),
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        # The socket listens already; a request that comes before the server is up just waits.
        yield _url(listener)
    finally:
        server.stop()
        await running


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio does this for its own listeners only; without it, answers wait 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        # Nobody can connect to "any address"; this machine's own stands in for it.
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"
