"""A PostgreSQL that is one test's own: it may be stopped, killed and started again."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import needed

PASSWORD = "hush-hush"
"""Nothing that a test starts may show it."""

OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=16MB"


class OwnPostgres:
    """The server.

    Attributes:
        url: of a database in it, with the password that it asks for.

    Args:
        folder: of its data.
        programs: where its programs are.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"postgresql://postgres:{PASSWORD}@{self.address}/postgres"
        self._folder = folder
        self._programs = programs

    async def make(self) -> None:
        """Make an empty cluster; as root it belongs to the user postgres, as initdb demands."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (self._folder, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        words = ("-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8")
        await self._run("initdb", "-D", str(self._data), "--no-locale", "--no-sync", *words)

    async def copy(self, primary: OwnPostgres) -> None:
        """Copy a running server, to follow it as a hot standby."""
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        words = ("-d", primary.url, "-c", "fast", "-R", "--no-sync")
        await self._run("pg_basebackup", "-D", str(self._data), *words)

    async def promote(self) -> None:
        """Make a standby the primary."""
        await self._ctl("promote", "-w")

    async def restart_as_standby(self) -> None:
        """What was the primary comes back as a standby, read-only."""
        await self.stop("fast")
        (self._data / "standby.signal").touch()
        await self.start()

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        log = str(self._folder / "log")
        await self._ctl("start", "-w", "-l", log, "-o", f"-p {self._port} {OPTIONS}")

    async def stop(self, mode: str = "immediate") -> None:
        """Stop it: `fast` says goodbye to everybody, `immediate` is as if it was killed."""
        await self._ctl("stop", "-w", "-m", mode)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    async def _ctl(self, *words: str) -> None:
        await self._run("pg_ctl", "-D", str(self._data), *words)

    async def _run(self, program: str, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            self._programs / program,
            *words,
            cwd=self._folder,
            user="postgres" if os.geteuid() == 0 else None,
            stdout=asyncio.subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0, (program, words)


@asynccontextmanager
async def own_postgres(*, standby_of: OwnPostgres | None = None) -> AsyncIterator[OwnPostgres]:
    """A server that runs; gone at the end, whether it runs by then or not.

    Args:
        standby_of: the server that it follows.
    """
    programs = needed.initdb()
    folder = Path(tempfile.mkdtemp(prefix="wavehook-postgres-"))
    server = OwnPostgres(folder, programs)
    try:
        if standby_of is None:
            await server.make()
        else:
            await server.copy(standby_of)
        await server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                await server.stop()
    finally:
        shutil.rmtree(folder)
