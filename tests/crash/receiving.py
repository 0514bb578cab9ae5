"""Real receiver processes, and a sender for them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from receiver.event import Attempt, Dispatch
from receiver.stores.sqlite import SQLiteStore
from submitter.api.transport import tls_context
from tests.crash.handlers import NOTES
from tests.support.fork_server import FORK_SERVER, Process, cold
from tests.support.paths import ROOT
from tests.support.waiting import until

SECRET = "whsec_crash"
DATABASE = "inbox.db"
WAVEHOOK = ("-c", "from receiver.cli import main; main()")
PATIENCE = 20.0
"""Seconds; only a test that fails waits as long."""

ENVIRONMENT = {
    "WAVEHOOK_DATABASE": f"sqlite:///{DATABASE}",
    "WAVEHOOK_WAVESPEED_SECRETS": SECRET,
    "WAVEHOOK_HANDLERS": "tests.crash.handlers",
    "WAVEHOOK_LEASE": "1",
    "WAVEHOOK_GRACE": "1",
    "WAVEHOOK_PORT": "0",
    # Who is killed writes no measurements, and a tracer keeps what it saw in memory.
    "COVERAGE_PROCESS_CONFIG": "",
    "COVERAGE_PROCESS_START": "",
}


def event_id(subject: str) -> str:
    """The id under which the receiver stores a webhook about this task."""
    return f"wavespeed:{subject}:completed"


def webhook(
    subject: str, model: str = "test/plain", **more: object
) -> tuple[bytes, dict[str, str]]:
    """A genuine webhook of now: body and headers."""
    body = json.dumps({"id": subject, "status": "completed", "model": model, **more}).encode()
    at = str(int(time.time()))
    content = f"{subject}.{at}.".encode() + body
    digest = hmac.new(SECRET.removeprefix("whsec_").encode(), content, hashlib.sha256).hexdigest()
    headers = {"webhook-id": subject, "webhook-timestamp": at, "webhook-signature": f"v3,{digest}"}
    return body, headers


COLD = {"tests.crash.older_version", "tests.crash.clock_skew"}
"""Programs that change other modules before these are imported."""


class Receiver:
    """A process that receives on a free port of 127.0.0.1."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid = process.pid
        self.log: list[dict[str, Any]] = []
        self.text = ""
        self._reading = asyncio.ensure_future(self._read())
        self._client = httpx.AsyncClient(timeout=PATIENCE, verify=tls_context())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode()
            if line.startswith(b"{"):
                self.log.append(json.loads(line))

    def told(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this name."""
        return [line for line in self.log if line["event"] == event]

    async def started(self, event: str = "server.started") -> Receiver:
        """Wait until it listens, or works."""
        await until(lambda: self.told(event) or self._reading.done())
        assert self.told(event), self.text
        return self

    async def send(
        self, subject: str, model: str = "test/plain", **more: object
    ) -> httpx.Response | None:
        """Post a webhook; None where the connection broke."""
        body, headers = webhook(subject, model, **more)
        url = self.told("server.started")[0]["url"]
        try:
            return await self._client.post(
                f"{url}/webhooks/wavespeed", content=body, headers=headers
            )
        except httpx.TransportError:
            return None

    async def post(self, subject: str, model: str = "test/plain") -> int | None:
        """The status alone."""
        answer = await self.send(subject, model)
        return None if answer is None else answer.status_code

    async def get(self, path: str) -> httpx.Response:
        """Ask for anything else."""
        return await self._client.get(self.told("server.started")[0]["url"] + path)

    async def ended(self) -> int:
        """Wait for the end; the exit code, or the negative number of the signal."""
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await self._reading
        return code

    async def end(self, number: int) -> int:
        """Send a signal, and wait for the end."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended()

    async def close(self) -> None:
        """Leave nothing behind."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()
        await self._client.aclose()


async def launch(folder: Path, program: tuple[str, ...], **settings: str) -> Receiver:
    """Start a process in `folder`; settings are environment variables."""
    return Receiver(await process(folder, program, **settings))


async def process(folder: Path, program: tuple[str, ...], **settings: str) -> Process:
    """As `launch`, for who reads what it prints."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **ENVIRONMENT, **settings}
    start = cold if program[1] in COLD else FORK_SERVER.start
    return await start(*program, folder=folder, environ=environ)


def notes(folder: Path, step: str | None = None) -> list[dict[str, Any]]:
    """What the handlers of all processes wrote, in order."""
    path = folder / NOTES
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [note for note in found if step is None or note["step"] == step]


@asynccontextmanager
async def inbox(folder: Path) -> AsyncIterator[SQLiteStore]:
    """The store of the processes, seen from outside."""
    store = SQLiteStore(folder / DATABASE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def dispatches(folder: Path, subject: str) -> dict[str, Dispatch]:
    """The dispatches of one event by handler; none where there is no event."""
    async with inbox(folder) as store:
        return {found.handler: found for found in await store.dispatches(event_id(subject))}


async def attempts(folder: Path, subject: str, handler: str) -> list[Attempt]:
    """The attempts of one dispatch."""
    async with inbox(folder) as store:
        found = await store.attempts(event_id(subject))
    return [attempt for attempt in found if attempt.handler == handler]


async def all_handled(folder: Path) -> None:
    """Wait until nothing is open or dead."""
    async with inbox(folder) as store:

        async def empty() -> bool:
            return not (await store.stats()).depth

        await until(empty)
