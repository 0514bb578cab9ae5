"""A response in one piece: uvicorn writes the head and the body of each with a system call."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class Cork:
    """A transport that holds a first write until the second, or to the end of the loop's turn.

    Args:
        transport: the real one; everything but writing and closing is left to it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: bytes | None = None
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport.write`."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            held, self._held = self._held, None
            self._transport.write(held + data)

    def close(self) -> None:
        """See `asyncio.BaseTransport.close`."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.write(held)


class CorkedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol over a `Cork`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See `asyncio.Protocol.connection_made`."""
        super().connection_made(Cork(transport))
