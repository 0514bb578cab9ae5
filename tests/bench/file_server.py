"""Gives out one file over HTTP, with the system's `sendfile`: python file_server.py FILE PORT."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path


async def main(path: Path, port: int) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {path.stat().st_size}\r\n\r\n".encode()

    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                if b"/livez" in asked:
                    writer.write(b"HTTP/1.1 204 X\r\n\r\n")
                    continue
                writer.write(head)
                await writer.drain()
                with path.open("rb") as file:
                    await asyncio.get_running_loop().sendfile(writer.transport, file)
        writer.close()

    server = await asyncio.start_server(give, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
