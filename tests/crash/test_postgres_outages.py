"""A PostgreSQL that is killed under load, or not there yet."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.crash.fleet import Fleet, keys
from tests.crash.receiving import Receiver, event_id
from tests.support.own_postgres import PASSWORD, OwnPostgres, own_postgres
from tests.support.waiting import until

BRIEF = ("-m", "tests.crash.impatient_start")
"""`wavehook` that waits for a database for a second only."""


@pytest.fixture
async def own() -> AsyncIterator[OwnPostgres]:
    async with own_postgres() as server:
        yield server


@pytest.fixture
async def fleet(own: OwnPostgres, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Nobody yet, on a server of its own."""
    async with AsyncExitStack() as stack:
        yield Fleet(tmp_path, own.url, "wavehook", stack)


async def send(receiver: Receiver, name: str, statuses: list[int | None]) -> str:
    """Send a webhook until it is acknowledged, as a vendor does."""
    while True:
        answer = await receiver.send(name)
        status = None if answer is None else answer.status_code
        statuses.append(status)
        if answer is not None and status in {200, 202}:
            return str(answer.json()["id"])
        assert answer is not None
        assert answer.headers["retry-after"].isdigit()
        await asyncio.sleep(0.05)


async def test_a_server_that_is_killed_under_load(own: OwnPostgres, fleet: Fleet) -> None:
    """F20, F21: 503 with Retry-After meanwhile; the same processes go on, and nothing is lost."""
    receivers, _ = await fleet.start(2, 2)
    statuses: list[int | None] = []
    acknowledged: list[str] = []

    async def load(name: str) -> None:
        for n in range(30):
            receiver = receivers[n % len(receivers)]
            acknowledged.append(await send(receiver, f"{name}-{n}", statuses))

    loading = [asyncio.ensure_future(load(f"task-{n}")) for n in range(8)]
    for mode in ("immediate", "fast"):
        done = len(acknowledged)
        await until(lambda done=done: len(acknowledged) >= done + 20)
        refused = statuses.count(503)
        await own.stop(mode)
        await until(lambda refused=refused: statuses.count(503) > refused + 5)
        assert (await receivers[0].get("/livez")).status_code == 200
        assert (await receivers[0].get("/readyz")).status_code == 503
        await own.start()
    await asyncio.gather(*loading)
    await fleet.all_handled()

    assert {*statuses} == {200, 202, 503} or {*statuses} == {202, 503}
    assert sorted(await fleet.stored()) == sorted(acknowledged)
    subjects = {f"task-{n}-{m}" for n in range(8) for m in range(30)}
    assert {event_id(subject) for subject in subjects} == {*acknowledged}
    assert {*fleet.ran()} == keys(subjects, "note", "tell")
    assert (await receivers[0].get("/readyz")).status_code == 200
    assert PASSWORD not in fleet.words
    assert "Traceback" not in fleet.words


async def test_a_server_that_is_not_there_yet(own: OwnPostgres, fleet: Fleet) -> None:
    """F20: whoever starts waits for it, with a word a second; exit 1 where it does not come."""
    await own.stop("fast")
    receiver, worker, stopped = [await fleet.begin(name) for name in ("serve", "worker", "worker")]
    brief = await fleet.begin("serve", program=BRIEF)
    assert await brief.ended() == 1
    assert f"Error: PostgreSQL at {own.address}/postgres: " in brief.text.splitlines()[-1]
    for process in (receiver, worker, stopped):
        await until(lambda process=process: len(process.told("database.awaited")) > 1)
    assert await stopped.end(signal.SIGTERM) == 0
    await own.start()
    await receiver.started()
    await worker.started("worker.started")

    assert await receiver.post("task-1") == 202
    await fleet.all_handled()
    assert own.address in receiver.told("database.awaited")[0]["error"]
    assert PASSWORD not in fleet.words
