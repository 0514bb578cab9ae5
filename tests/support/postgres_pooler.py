"""A pooler in transaction mode: each transaction goes to another of a few server connections.

It knows of the protocol what a pooler must: where a message ends, and when a transaction does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_SSL_REQUEST = 80877103

_IDLE = b"Z\0\0\0\5I"
"""Ready for a query, and outside of a transaction."""

_ENDS = {b"Q": b"Z", b"S": b"Z", b"H": b"TnE"}
"""What a client waits after, and what ends the answer: a query, a sync, a flush of a Describe."""


class Pooler:
    """Few connections for many.

    Args:
        address: host and port of the server.
        size: connections to it.
    """

    def __init__(self, address: tuple[str, int], size: int = 3) -> None:
        self._address = address
        self._size = size
        self._servers: asyncio.Queue[_Streams] = asyncio.Queue()
        self._all: list[_Streams] = []
        self._greeting = b""
        self._starting = asyncio.Lock()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its beginning to its end."""
        try:
            await self._meet(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        """End the connections to the server."""
        for _, writer in self._all:
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await _startup(reader)
        while struct.unpack("!I", startup[4:8])[0] == _SSL_REQUEST:
            writer.write(b"N")
            startup = await _startup(reader)
        async with self._starting:
            if not self._all:
                for _ in range(self._size):
                    await self._connect(startup)
        writer.write(self._greeting)
        server: _Streams | None = None
        while True:
            sent = [await _message(reader)]
            if sent[0][:1] == b"X":
                return
            while sent[-1][:1] not in _ENDS:
                sent.append(await _message(reader))
            server = server or await self._servers.get()
            server[1].write(b"".join(sent))
            answer = b""
            while not answer or answer[:1] not in _ENDS[sent[-1][:1]]:
                answer = await _message(server[0])
                writer.write(answer)
            await writer.drain()
            if answer == _IDLE:
                # To the end of the queue: the next transaction meets another.
                self._servers.put_nowait(server)
                server = None

    async def _connect(self, startup: bytes) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(startup)
        greeting = b""
        while not greeting.endswith(_IDLE):
            greeting += await _message(reader)
        self._greeting = greeting
        self._all.append((reader, writer))
        self._servers.put_nowait((reader, writer))


async def _startup(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("!I", head)[0] - 4)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[str]:
    """The address of a pooler before a server that trusts everybody."""
    address = urlsplit(url)
    pooler = Pooler((address.hostname or "127.0.0.1", address.port or 5432))
    tasks: set[asyncio.Task[None]] = set()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(pooler.meet(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    user = f"{address.username}@" if address.username else ""
    try:
        yield urlunsplit(address._replace(netloc=f"{user}127.0.0.1:{own}"))
    finally:
        server.close()
        pooler.close()
        await asyncio.gather(*tasks)
