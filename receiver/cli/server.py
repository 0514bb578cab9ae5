"""uvicorn, ended our way: SIGTERM drains and the process exits 0."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from receiver.cli.startup import captured, collect_rarely, opened, patience
from receiver.errors import WavehookError
from receiver.telemetry.log import logger

if TYPE_CHECKING:
    from receiver.build import ReceiverParts


class Server(uvicorn.Server):
    """Serves the built parts on a bound socket.

    Args:
        parts: the receiver.
        listener: where to accept; see `listen`.
    """

    def __init__(self, parts: ReceiverParts, listener: socket.socket) -> None:
        settings = parts.settings
        super().__init__(
            uvicorn.Config(
                parts.app,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, math.ceil(settings.grace)),
            )
        )
        self._parts = parts
        self._listener = listener

    def serve_until_signal(self) -> None:
        """Serve, and return after a clean shutdown."""
        self.run(sockets=[self._listener])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the database first: what it says at a failed start is for a person to read."""
        if await opened(self._parts.lifecycle.open, patience(self._parts.settings)):
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        collect_rarely()
        settings = self._parts.settings
        host, port = self._listener.getsockname()[:2]
        logger().info(
            "server.started",
            url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
            sources=sorted(self._parts.intake.sources),
            handlers=sorted(handler.name for handler in self._parts.handlers),
            dispatch=settings.dispatch,
            database=settings.database_label,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the long polls, then the rest.

        Upstream waits for open requests up to the grace time, and ends the lifespan only then.
        """
        self._parts.results.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Upstream raises the signal again at the end, so that the process dies of it (F40)."""
        with captured(self.handle_exit):
            yield


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket.

    Raises:
        WavehookError: the port is taken, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named, asyncio turns Nagle's algorithm off on what is accepted.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as error:
        raise WavehookError(f"--host {host}: it cannot be listened on ({error.strerror})") from None
    try:
        # On Windows it would let two servers share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} of {host} is taken; choose another with --port, or --port 0"
        else:
            text = f"{host}, port {port}: it cannot be listened on ({error.strerror})"
        raise WavehookError(text) from None
    listener.setblocking(False)
    return listener
