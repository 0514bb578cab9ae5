"""A disk that is full, a file that cannot be written, a lock that stays, another version's file."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Done, Event
from receiver.stores.sqlite import SQLiteStore
from tests.crash.conftest import Start
from tests.crash.receiving import (
    DATABASE,
    WAVEHOOK,
    all_handled,
    dispatches,
    event_id,
    inbox,
    launch,
    notes,
)
from tests.support import needed

PLAN: dict[str, tuple[str, ...]] = {"keep": (), "tell": ()}
NO_FAULT = "PRAGMA query_only = OFF"


class Faulty(SQLiteStore):
    """A store whose connections are made to fail, in SQLite's own words."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, busy_timeout_s=0.05, on_connect=self._fail)
        self.fault = NO_FAULT

    def _fail(self, connection: sqlite3.Connection) -> None:
        connection.execute(self.fault)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Faulty]:
    """Open and empty; its writer connects at the first write."""
    store = Faulty(tmp_path / DATABASE)
    await store.open()
    yield store
    await store.close()


def event(n: int) -> Event:
    """An event that takes some pages."""
    return Event(f"test:{n}:completed", "test", "prediction.completed", body=b"x" * 20_000)


async def test_a_full_disk(store: Faulty) -> None:
    """F20: what was confirmed is there whole, the rest is refused, and room makes it work again."""
    store.fault = "PRAGMA max_page_count = 80"
    answers = await asyncio.gather(
        *[store.add(event(n), PLAN) for n in range(5)], return_exceptions=True
    )
    for n in range(5, 30):
        answers += await asyncio.gather(store.add(event(n), PLAN), return_exceptions=True)

    taken = [n for n, answer in enumerate(answers) if not isinstance(answer, BaseException)]
    assert 5 <= len(taken) < 30
    assert {type(answers[n]) for n in range(30) if n not in taken} == {StoreUnavailable}
    assert [listed.event for listed in reversed(await store.events())] == [event(n) for n in taken]

    store.fault = NO_FAULT
    receipts = [await store.add(event(n), PLAN) for n in range(30)]
    assert [n for n, receipt in enumerate(receipts) if receipt.duplicate] == taken
    assert (await store.stats()).depth == {("keep", "pending"): 30, ("tell", "pending"): 30}


async def test_a_read_only_file(store: Faulty) -> None:
    """F20: everything can be read, nothing is taken, and `ping` says so."""
    await store.add(event(1), PLAN)
    await store.close()
    store.fault = "PRAGMA query_only = ON"
    await store.open()

    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.add(event(2), PLAN)
    assert [listed.event for listed in await store.events()] == [event(1)]

    store.fault = NO_FAULT
    await store.ping()
    assert not (await store.add(event(2), PLAN)).duplicate


async def test_a_lock_that_stays(store: Faulty) -> None:
    """F20: a writer that never ends is waited for, then told of; nothing of ours is half done."""
    await store.add(event(1), PLAN)
    (lease,) = await store.claim("a", {"keep": 1}, 30, 0)
    await store.close()
    await store.open()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    for call in (
        store.ping(),
        store.add(event(2), PLAN),
        store.claim("b", {"tell": 1}, 30, 0),
        store.settle(lease.dispatch, "a", Done(), 0),
    ):
        with pytest.raises(StoreUnavailable, match="locked"):
            await call
    assert len(await store.events()) == 1

    other.execute("ROLLBACK")
    other.close()
    assert await store.settle(lease.dispatch, "a", Done(), 0)
    assert len(await store.claim("b", {"tell": 1}, 30, 0)) == 1


async def test_a_receiver_on_a_full_disk(start: Start, tmp_path: Path) -> None:
    """F20: 503 with Retry-After; with room again it goes on by itself, and nothing is lost."""
    needed.linux()
    resource = needed.module("resource")
    receiver = await start()
    assert await receiver.post("first") == 202
    await all_handled(tmp_path)
    room = (tmp_path / f"{DATABASE}-wal").stat().st_size
    resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    answers = [await receiver.send(f"task-{n}") for n in range(3)]
    assert [answer and answer.status_code for answer in answers] == [503] * 3
    assert all(answer and int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert (await receiver.get("/readyz")).status_code == 503
    assert (await receiver.get("/livez")).status_code == 200
    assert await dispatches(tmp_path, "task-0") == {}

    everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, everything)
    assert (await receiver.get("/readyz")).status_code == 200
    assert [await receiver.post(f"task-{n}") for n in range(3)] == [202] * 3
    assert await receiver.post("first") == 200
    await all_handled(tmp_path)
    ran = [note["key"] for note in notes(tmp_path, "tell")]
    assert sorted(ran) == sorted(
        f"{event_id(subject)}/tell" for subject in ("first", "task-0", "task-1", "task-2")
    )
    assert await receiver.end(signal.SIGTERM) == 0
    assert "Traceback" not in receiver.text


async def test_an_old_version_meets_a_newer_schema(tmp_path: Path) -> None:
    """F43: it ends with a clear word, and leaves the database to those who understand it."""
    async with inbox(tmp_path):
        pass
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    receiver = await launch(tmp_path, (*WAVEHOOK, "serve"))
    assert await receiver.ended() == 2
    await receiver.close()

    assert "made by a newer Wavehook" in receiver.text
    assert "Traceback" not in receiver.text
    connection = sqlite3.connect(tmp_path / DATABASE)
    assert connection.execute("PRAGMA user_version").fetchone() == (999,)
    connection.close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """F20: a start on somebody else's file says which file, and changes nothing in it."""
    content = b"these are my notes, not a database\n" * 100
    (tmp_path / DATABASE).write_bytes(content)

    receiver = await launch(tmp_path, (*WAVEHOOK, "serve"))
    assert await receiver.ended() == 1
    await receiver.close()

    assert DATABASE in receiver.text
    assert "Traceback" not in receiver.text
    assert (tmp_path / DATABASE).read_bytes() == content


async def test_killed_in_the_middle_of_a_migration(start: Start, tmp_path: Path) -> None:
    """F43: the next start begins it anew."""
    doomed = await launch(tmp_path, ("-m", "tests.crash.kill_points", "in-migration"))
    assert await doomed.ended() == -signal.SIGKILL
    await doomed.close()

    assert await (await start()).post("task-1") == 202
    await all_handled(tmp_path)


async def test_a_hundred_starts_and_stops(tmp_path: Path) -> None:
    """F45: no file descriptor, no thread and no memory stays behind."""
    receiver = await launch(tmp_path, ("-m", "tests.crash.cycles", "100"))
    assert await receiver.ended() == 0, receiver.text
    await receiver.close()

    rounds = receiver.told("cycle")
    assert len(rounds) == 100
    assert {held["fds"] for held in rounds[10:]} == {rounds[10]["fds"]}
    assert {held["threads"] for held in rounds} == {1}
    # Caches fill in the first rounds; after them a round may not keep what it made.
    assert rounds[-1]["blocks"] - rounds[50]["blocks"] < 49 * 10
