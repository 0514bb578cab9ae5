"""Ends of connections that HTTP knows nothing of: closed without an answer, and reset."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STATE = "wavehook.connection"
"""Where a request finds its connection, in its state."""


def losable(base: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """One of uvicorn's HTTP protocols, on whose requests `Lost` may be answered.

    Args:
        base: uvicorn's protocol over h11 or httptools.
    """

    class Losable(base):  # type: ignore[valid-type, misc]
        # uvicorn copies the state into the scope of every request.
        def __init__(self, *, app_state: dict[str, Any], **more: Any) -> None:
            super().__init__(app_state={**app_state, STATE: self}, **more)

        def connection_made(self, transport: asyncio.Transport) -> None:
            self._wire = transport
            super().connection_made(transport)

        def lose(self, *, reset: bool) -> None:
            if not reset or self._wire.is_closing():
                self._wire.close()
                return
            # A socket that lingers for no time at all says goodbye with RST.
            now = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            wire = self._wire.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self._wire.abort()

    return Losable


class Lost(Response):
    """No answer: the connection ends instead. Works under `serving`.

    Args:
        reset: end it with RST, not in order.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """End the connection, and wait until it has ended: uvicorn would answer 500 before."""
        scope["state"][STATE].lose(reset=self._reset)
        while (await receive())["type"] != "http.disconnect":
            pass
