"""A PostgreSQL that is killed, not there yet, of another version, or does not let us in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.contract.postgres_schemas import connected
from tests.crash.fleet import Fleet, keys
from tests.crash.receiving import WAVEHOOK, Receiver, event_id, until
from tests.own_postgres import PASSWORD, OwnPostgres, own_postgres

BRIEF = ("-m", "tests.crash.impatient")
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


async def test_a_server_that_comes_up_later(own: OwnPostgres, fleet: Fleet) -> None:
    """F20: whoever is started before it waits, with a word a second, and then starts."""
    await own.stop("fast")
    receiver, worker = await fleet.begin("serve"), await fleet.begin("worker")
    for process in (receiver, worker):
        await until(lambda process=process: len(process.told("database.awaited")) > 1)
    await own.start()
    await receiver.started()
    await worker.started("worker.started")

    assert await receiver.post("task-1") == 202
    await fleet.all_handled()
    assert own.address in receiver.told("database.awaited")[0]["error"]
    assert PASSWORD not in fleet.words


async def test_a_server_that_does_not_come_up(own: OwnPostgres, fleet: Fleet) -> None:
    """Bad input: exit 1 after a while, with host and reason; a signal ends the waiting with 0."""
    await own.stop("fast")
    waiting = [await fleet.begin(command) for command in ("serve", "worker")]
    for command in ("serve", "drain", "migrate"):
        process = await fleet.begin(command, program=BRIEF)
        assert await process.ended() == 1
        last = process.text.splitlines()[-1]
        assert last.startswith(f"Error: PostgreSQL at {own.address}/postgres: ")
        assert len(process.told("database.awaited")) > 0
    for process in waiting:
        await until(lambda process=process: process.told("database.awaited"))
        assert await process.end(signal.SIGTERM) == 0
    assert PASSWORD not in fleet.words


async def test_a_server_that_refuses(own: OwnPostgres, fleet: Fleet) -> None:
    """Bad input: what no waiting helps is told at once, with what to do, and never the password."""
    async with connected(own.url) as connection:
        await connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    for change, words, todo in (
        ((PASSWORD, f"{PASSWORD}-no"), "password authentication failed", "correct user, password"),
        (("/postgres?", "/nothing?"), 'database "nothing" does not exist', "make the database"),
        (("//postgres:", "//guest:"), "permission denied for database", "`wavehook migrate`"),
        (("?", "?pgbouncer=true&"), "pgbouncer", "out of WAVEHOOK_DATABASE"),
        (("?", "?sslmode=sometimes&"), "the URL cannot be used", "with known options"),
    ):
        fleet.url, kept = fleet.url.replace(*change), fleet.url
        process = await fleet.begin("serve")
        assert await process.ended() == 1
        assert words in process.text
        assert todo in process.text
        assert process.told("database.awaited") == []
        fleet.url = kept
    assert PASSWORD not in fleet.words


async def test_versions_that_migrate_at_once(own: OwnPostgres, fleet: Fleet) -> None:
    """F43: the new one wins; an old one makes what it knows before that, or refuses with a word."""
    old = ("-m", "tests.crash.older")
    processes = await asyncio.gather(
        *(fleet.begin("migrate", program=program) for program in (old, WAVEHOOK) * 2)
    )
    codes = await asyncio.gather(*(process.ended() for process in processes))
    assert {*codes[1::2]} == {0}
    assert {*codes[::2]} <= {0, 2}
    async with connected(own.url) as connection:
        numbers = await connection.fetch("SELECT number FROM wavehook.migration ORDER BY number")
    newest = len(numbers)
    assert [number for (number,) in numbers] == [*range(1, newest + 1)]

    for command in ("serve", "events"):
        process = await fleet.begin(command, program=old)
        assert await process.ended() == 2
        assert f"has version {newest}, this program works with {newest - 1}" in process.text
    assert PASSWORD not in fleet.words
