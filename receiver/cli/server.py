"""uvicorn server of `wavehook serve`: graceful shutdown on SIGTERM, and exit code 0."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from receiver.cli.startup import open_timeout, open_with_retries, signals_to, tune_gc
from receiver.errors import WavehookError
from receiver.telemetry.log import logger

if TYPE_CHECKING:
    from receiver.build import ReceiverParts


class Server(uvicorn.Server):
    """uvicorn server of a built receiver.

    Args:
        parts: the receiver.
        listener: a bound socket, from `listen`.
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
        """Serve until SIGINT or SIGTERM, and return after a clean shutdown."""
        self.run(sockets=[self._listener])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the database, then serve; a failure to open it reaches the person as an error."""
        if await open_with_retries(self._parts.lifecycle.open, open_timeout(self._parts.settings)):
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and log the address."""
        await super().startup(sockets)
        tune_gc()
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
        """End the long polls first: uvicorn waits for open requests up to the grace time."""
        self._parts.results.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals without raising them again at the end, so that the process exits 0."""
        with signals_to(self.handle_exit):
            yield


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket.

    Raises:
        WavehookError: the port is taken, or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named, asyncio turns Nagle's algorithm off on what is accepted.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as error:
        raise WavehookError(f"cannot listen on --host {host} ({error.strerror})") from None
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
            text = f"cannot listen on {host}, port {port} ({error.strerror})"
        raise WavehookError(text) from None
    listener.setblocking(False)
    return listener
