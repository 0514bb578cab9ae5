"""A real `wavehook serve`, a client in another process, and a sender whose webhooks do not arrive.

The sender is the simulator, over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.event import Event, Origin
from receiver.stores.sqlite import SQLiteStore
from submitter.client import WaveSpeed
from submitter.ledger.base import State
from submitter.ledger.sqlite import SQLiteLedger
from submitter.settings import SubmitSettings
from submitter.simulator import Faults, Simulator
from tests.support.fork_server import FORK_SERVER, Process

COMMAND = "from receiver.cli import main; main()"
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
PATIENCE = 30.0
"""Seconds; only a test that fails waits as long."""

HANDLERS = """
from pathlib import Path
from receiver import on

@on()
async def note(event, context):
    with Path("handled").open("a") as file:
        file.write(f"{event.subject} {event.context['job']}\\n")
"""


class Served:
    """A running `serve`."""

    def __init__(self, url: str, process: Process, folder: Path) -> None:
        self.url = url
        self.process = process
        self.folder = folder

    @property
    def handled(self) -> list[str]:
        path = self.folder / "handled"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    async def metrics(self) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{self.url}/metrics")).text


@asynccontextmanager
async def serving(sim: Simulator, folder: Path, **settings: str) -> AsyncIterator[Served]:
    """`wavehook serve` with the simulator's key, until a SIGTERM, which it obeys with 0."""
    (folder / "noting.py").write_text(HANDLERS)
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WAVEHOOK_", "WAVESPEED_"))
    } | {
        "WAVESPEED_API_KEY": "k",
        "WAVESPEED_BASE_URL": sim.url,
        "WAVEHOOK_HANDLERS": "noting",
        "WAVEHOOK_PORT": "0",
        "PYTHONPATH": str(folder),
        **{f"WAVEHOOK_{name.upper()}": value for name, value in settings.items()},
    }
    process = await FORK_SERVER.start("-c", COMMAND, "serve", folder=folder, environ=environ)
    try:
        yield Served(await _url(process), process, folder)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, told = await process.communicate()
        assert process.returncode == 0, told.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _url(process: Process) -> str:
    told = []
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        async for line in process.stderr:
            told.append(line.decode())
            if '"server.started"' in told[-1]:
                return str(json.loads(line)["url"])
    raise AssertionError("".join(told))


def client(sim: Simulator, served: Served, overdue: float) -> WaveSpeed:
    database = served.folder / "wavehook.db"
    settings = SubmitSettings(
        api_key="k", base_url=sim.url, database=f"sqlite:///{database}", overdue=overdue
    )
    return WaveSpeed(
        webhook_url=served.url, settings=settings, transport=httpx.AsyncHTTPTransport()
    )


async def until_handled(served: Served, jobs: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(served.handled) < jobs:
            await asyncio.sleep(0.02)


async def stored(folder: Path) -> list[Event]:
    store = SQLiteStore(folder / "wavehook.db")
    await store.open()
    try:
        return [listed.event for listed in await store.events()]
    finally:
        await store.close()


async def submit(sim: Simulator, wave: WaveSpeed, jobs: int) -> list[str]:
    submissions = [
        await wave.submit(MODEL, prompt=f"take {job}", image=sim.first_frame, context={"job": job})
        for job in range(jobs)
    ]
    return [f"{each.task_id} {job}" for job, each in enumerate(submissions)]


async def test_results_whose_webhook_never_comes_are_handled(tmp_path: Path) -> None:
    """F29: `serve` asks for them, and they go the way of every webhook, with their context."""
    faults = Faults.parse("drop")
    async with (
        Simulator(speed=200.0, faults=faults) as sim,
        serving(sim, tmp_path, overdue="0.5s") as served,
        client(sim, served, 0.5) as wave,
    ):
        expected = await submit(sim, wave, 3)
        await until_handled(served, 3)
        assert served.handled == sorted(expected)
        # The last may be handled before it is counted.
        async with asyncio.timeout(PATIENCE):
            while "wavehook_reconcile_found_total 3.0" not in (metrics := await served.metrics()):
                await asyncio.sleep(0.02)
        assert "wavehook_reconcile_overdue" in metrics
    assert {event.origin for event in await stored(tmp_path)} == {Origin.RECONCILE}


async def test_webhooks_finish_their_submissions_and_nobody_is_asked(tmp_path: Path) -> None:
    """F28: also those that come before the answer to their submit."""
    async with (
        Simulator(speed=200.0, faults=Faults.parse("early-webhook=0.5", 1)) as sim,
        serving(sim, tmp_path) as served,
        client(sim, served, 300.0) as wave,
    ):
        expected = await submit(sim, wave, 4)
        await until_handled(served, 4)
        ledger = SQLiteLedger(tmp_path / "wavehook.db")
        await ledger.open()
        async with asyncio.timeout(PATIENCE):
            while await ledger.open_entries():
                await asyncio.sleep(0.02)
        entries = await ledger.finished(0)
        await ledger.close()

        assert served.handled == sorted(expected)
        assert [(entry.state, entry.delivered) for entry in entries] == [(State.FINISHED, True)] * 4
        assert sim.calls["result"] == 0
    assert {event.origin for event in await stored(tmp_path)} == {Origin.WEBHOOK}


async def test_webhooks_with_an_old_time_are_made_good(tmp_path: Path) -> None:
    """F7: rightly signed and late, each costs one question, and keeps its context."""
    async with (
        Simulator(speed=200.0, faults=Faults.parse("stale")) as sim,
        serving(sim, tmp_path, reconcile="off") as served,
        client(sim, served, 300.0) as wave,
    ):
        expected = await submit(sim, wave, 3)
        await until_handled(served, 3)

        assert served.handled == sorted(expected)
        assert sim.calls["result"] == 3


async def test_a_stop_ends_long_polls_at_once(tmp_path: Path) -> None:
    """F40: who waits for a result is told that there is none yet, long before the grace is over."""
    async with Simulator() as sim:
        async with serving(sim, tmp_path, admin_token="t0ken", grace="60s") as served:
            host, port = served.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"GET /api/predictions/none?wait=60 HTTP/1.1\r\nhost: h\r\n"
                b"authorization: Bearer t0ken\r\n\r\n"
            )
            await writer.drain()
            # What comes on a later connection is answered after that one was begun.
            assert "wavehook" in await served.metrics()
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(("token", "status"), [(None, 404), ("t0ken", 401)])
async def test_the_api_is_there_where_its_token_is_set(
    token: str | None, status: int, tmp_path: Path
) -> None:
    """F38: without the setting there is nothing to guess at."""
    settings: dict[str, Any] = {"admin_token": token} if token else {}
    async with (
        Simulator() as sim,
        serving(sim, tmp_path, **settings) as served,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        assert (await http.get(f"{served.url}/api/predictions")).status_code == status
