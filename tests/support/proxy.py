"""A network between a ledger and its database, which fails as networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

_Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Proxy:
    """Passes everything on, until it is told otherwise.

    Attributes:
        url: of the database, by this way.
        target: host and port that new connections go to.
        refusing: new connections are closed at once.
        cut_at: connections are cut when this comes from the client; it still gets through.
    """

    def __init__(self) -> None:
        self.url = ""
        self.target = ("127.0.0.1", 5432)
        self.refusing = False
        self.cut_at: bytes | None = None
        self._pairs: list[_Pair] = []
        self._silent: set[asyncio.StreamWriter] = set()
        self.connections = 0

    def cut(self) -> None:
        """End all connections."""
        for client, server in self._pairs:
            client.transport.abort()
            server.transport.abort()

    def silence(self) -> None:
        """Nothing passes on the connections that are there, and nobody is told."""
        for pair in self._pairs:
            self._silent.update(pair)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        if self.refusing:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            server_reader, server = await asyncio.open_connection(*self.target)
        except OSError:  # The server is away.
            writer.transport.abort()
            return
        self._pairs.append((writer, server))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                self._pass(reader, server, to_server=True),
                self._pass(server_reader, writer, to_server=False),
            )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        while data := await reader.read(65536):
            if writer in self._silent:
                continue
            writer.write(data)
            await writer.drain()
            if to_server and self.cut_at is not None and self.cut_at in data:
                self.cut_at = None
                # What was sent is to arrive there; its answer is not to arrive here.
                for client, server in self._pairs:
                    if server is writer:
                        client.transport.abort()
        writer.close()


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """A proxy before a database; ended at the end."""
    address = urlsplit(url)
    found = Proxy()
    found.target = (address.hostname or "127.0.0.1", address.port or 5432)
    tasks: set[asyncio.Task[None]] = set()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(found.meet(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    user, at, _ = address.netloc.rpartition("@")
    found.url = urlunsplit(address._replace(netloc=f"{user}{at}127.0.0.1:{own}"))
    try:
        yield found
    finally:
        server.close()
        found.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
