"""A process that has imported what is ours, and forks: Pythons without the time of their start.

Most of a start is imports, and tests make hundreds of them. Who is forked is a process all the
same, with a folder, an environment and signals of its own. What changes other modules before they
are imported cannot be started so.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from runpy import run_module
from threading import Lock
from typing import TypedDict

import receiver
import submitter
from tests.support.paths import ROOT

LIMIT = 1 << 16
"""Bytes of an order."""


class Order(TypedDict):
    """What is to be started, as JSON; three pipes come with it."""

    folder: str
    environ: dict[str, str]
    words: list[str]


class Pipe(asyncio.StreamReaderProtocol):
    """What a child writes.

    Attributes:
        stream: of it.
        closed: set when the child, and who came from it, has let go of it.
    """

    def __init__(self) -> None:
        # Whatever nobody reads has its place here; a pipe that is full would stop the child.
        self.stream = asyncio.StreamReader(limit=1 << 30)
        self.closed = asyncio.Event()
        super().__init__(self.stream)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, as the transport tells it."""
        super().connection_lost(exc)
        self.closed.set()


class Forked:
    """A child of the nursery: as much of `asyncio.subprocess.Process` as tests use.

    Attributes:
        pid: of the process.
        returncode: as a subprocess has it; None until somebody has waited for the end.
        stdout: what it prints.
        stderr: what it says.
    """

    def __init__(self, pid: int, printed: Pipe, told: Pipe, ended: Pipe) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout, self.stderr = printed.stream, told.stream
        self._pipes = printed, told, ended

    def send_signal(self, number: int) -> None:
        """Send it, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        for pipe in self._pipes:
            await pipe.closed.wait()
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(await self._pipes[2].stream.read()))
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """All that it prints and says."""
        printed, told = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return printed, told


Process = asyncio.subprocess.Process | Forked


async def cold(*words: str, folder: Path, environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start `python` with these words, and all of its imports."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


class ForkServer:
    """Starts processes by way of one that starts itself at the first need."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._lock = Lock()

    async def start(self, *words: str, folder: Path, environ: Mapping[str, str]) -> Process:
        """Start `python` with these words: `-m` or `-c`, what it takes, and more for that.

        Where coverage measures processes, or nothing can be forked so, it starts as any other.
        """
        if environ.get("COVERAGE_PROCESS_CONFIG") or not hasattr(os, "pidfd_open"):
            return await cold(*words, folder=folder, environ=environ)
        order = Order(folder=str(folder), environ={**environ}, words=[*words])
        pipes = [os.pipe() for _ in range(3)]
        pid = await asyncio.to_thread(self._order, order, [write for _, write in pipes])
        loop = asyncio.get_running_loop()
        files = [os.fdopen(read, "rb", 0) for read, _ in pipes]
        printed, told, ended = [(await loop.connect_read_pipe(Pipe, file))[1] for file in files]
        return Forked(pid, printed, told, ended)

    def _order(self, order: Order, pipes: list[int]) -> int:
        with self._lock:
            orders = self._orders or self._begin()
            socket.send_fds(orders, [json.dumps(order).encode()], pipes)
            for pipe in pipes:
                os.close(pipe)
            return int(orders.recv(LIMIT))

    def close(self) -> None:
        """End the process; what it has started ends with its tests."""
        if self._process is not None and self._orders is not None:
            self._orders.close()
            self._process.wait()

    def _begin(self) -> socket.socket:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "tests.support.fork_server", str(number)]
            # Who is to be measured is not forked; coverage in it would be in all that are.
            unmeasured = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **unmeasured},
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
            )
        return self._orders


FORK_SERVER = ForkServer()
"""Of the process that runs tests; see `tests/conftest.py` for its end."""


def main(orders: socket.socket) -> list[str]:
    """Fork at every order, and tell how each child ended; returns in the children, with words."""
    watched = selectors.DefaultSelector()
    watched.register(orders, selectors.EVENT_READ)
    children: dict[int, tuple[int, int]] = {}
    while True:
        for key, _ in watched.select():
            if key.fd in children:
                pid, pipe = children.pop(key.fd)
                watched.unregister(key.fd)
                status = os.waitpid(pid, 0)[1]
                with contextlib.suppress(BrokenPipeError):  # whose test has ended
                    os.write(pipe, str(status).encode())
                os.close(pipe)
                os.close(key.fd)
                continue
            order, pipes, *_ = socket.recv_fds(orders, LIMIT, 3)
            if not order:
                sys.exit()
            printed, told, ended = pipes
            pid = os.fork()
            if not pid:
                watched.close()
                orders.close()
                for each in (ended, *children, *[pipe for _, pipe in children.values()]):
                    os.close(each)
                child: Order = json.loads(order)
                _become(child, printed, told)
                return child["words"]
            orders.send(str(pid).encode())
            os.close(printed)
            os.close(told)
            alive = os.pidfd_open(pid)
            children[alive] = pid, ended
            watched.register(alive, selectors.EVENT_READ)


def _become(order: Order, printed: int, told: int) -> None:
    """Be as who was started in this folder, with this environment."""
    for pipe, number in ((printed, 1), (told, 2)):
        os.dup2(pipe, number)
        os.close(pipe)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.path[0] = ""


def _run(kind: str, program: str, *words: str) -> None:
    sys.argv = [kind, *words]
    if kind == "-m":
        run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})


def _load() -> None:
    """Import all that is ours, and what is imported when it is used."""
    for package in (receiver, submitter):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    for name in ("asyncpg", "uvloop", "uvicorn.protocols.http.httptools_impl"):
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.freeze()


if __name__ == "__main__":
    _load()
    _run(*main(socket.socket(fileno=int(sys.argv[1]))))
