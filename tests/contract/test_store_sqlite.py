"""What a file adds to the promises: other processes, restarts, other versions, other files."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import DispatchState, Done, Event
from receiver.stores.base import Plan
from receiver.stores.sqlite import SQLiteStore
from tests.support.events import CHAIN, LEASE, NOW, PLAN, claim, claim_one, event, only
from tests.support.paths import ROOT

PROCESSES = 4
EVENTS = 60


async def opened(path: Path) -> SQLiteStore:
    """A store on a file."""
    store = SQLiteStore(path)
    await store.open()
    return store


async def test_processes_on_one_file_store_and_run_each_event_once(tmp_path: Path) -> None:
    """F3, F22: four processes that start at once on a new file; none sees a locked database."""
    path = tmp_path / "inbox.db"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.store_process",
            "add",
            str(path),
            f"owner-{n}",
            str(EVENTS),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(PROCESSES)
    ]
    answers = [json.loads((await process.communicate())[0]) for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES
    ids = [event(f"task-{n}").id for n in range(EVENTS)]
    assert sorted(id for answer in answers for id in answer["new"]) == sorted(ids)
    ran = sorted(key for answer in answers for key in answer["ran"])
    assert ran == sorted(f"{id}/{name}" for id in ids for name in PLAN)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """F1: another object on the same file sees what the first one confirmed, to the last row."""
    path = tmp_path / "inbox.db"
    first = await opened(path)
    await first.add(event(), {**CHAIN, "copy": ()})
    await first.settle(await claim_one(first, "keep"), "a", Done("result"), NOW)
    await first.pause("copy", NOW + 60)
    lease = await claim_one(first, "tell")
    before = (
        await first.events(),
        await first.dispatches(event().id),
        await first.attempts(event().id),
        await first.stats(),
    )
    await first.close()

    second = await opened(path)
    assert (
        await second.events(),
        await second.dispatches(event().id),
        await second.attempts(event().id),
        await second.stats(),
    ) == before
    assert (await second.add(event(), PLAN)).duplicate
    assert await claim(second, "copy", now=NOW + 59) == []
    assert await second.settle(lease, "a", Done(), NOW)
    await second.close()


async def test_two_stores_on_one_file_see_each_other(tmp_path: Path) -> None:
    """F22: what one commits, the other can claim, and its leases hold for both."""
    one, two = await opened(tmp_path / "inbox.db"), await opened(tmp_path / "inbox.db")
    await one.add(event(), PLAN)

    assert (await two.add(event(), PLAN)).duplicate
    lease = await claim_one(two, owner="b")
    assert await claim(one, owner="a") == []
    assert await one.extend([lease], "a", LEASE, NOW) == [lease]
    assert (await only(one)).state is DispatchState.LEASED
    await one.close()
    await two.close()


async def test_reads_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    """F22: while another process holds the write lock, the dashboard still answers."""
    store = await opened(tmp_path / "inbox.db")
    await store.add(event(), PLAN)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    adding = asyncio.ensure_future(store.add(event("task-2"), PLAN))

    async with asyncio.timeout(5):
        assert len(await store.events()) == 1
        assert (await store.stats()).oldest_open == NOW
    assert not adding.done()

    other.execute("ROLLBACK")
    other.close()
    assert not (await adding).duplicate
    await store.close()


async def test_a_cancelled_add_is_stored_or_not_but_never_half(tmp_path: Path) -> None:
    """Promise 1: a sender that hangs up leaves a whole event behind, or none."""
    store = await opened(tmp_path / "inbox.db")
    adding = asyncio.ensure_future(store.add(event(), PLAN))
    await asyncio.sleep(0)
    adding.cancel()
    await store.add(event("task-2"), PLAN)

    found = await store.event(event().id)
    assert len(await store.dispatches(event().id)) == (0 if found is None else len(PLAN))
    await store.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """F43: an old version says what to do, and leaves the file as it is."""
    path = tmp_path / "inbox.db"
    await (await opened(path)).close()
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(SchemaMismatch, match="newer Wavehook") as caught:
        await opened(path)

    assert (caught.value.found, caught.value.expected) == (version + 1, version)
    assert path.read_bytes() == before


async def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    """F43: a wrong path must not put our tables among another program's."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE song (title TEXT)")
    connection.close()

    with pytest.raises(SchemaMismatch, match="something else"):
        await opened(path)


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 50, None])
async def test_a_path_that_cannot_be_a_database(tmp_path: Path, content: bytes | None) -> None:
    """F20: a file of something else, or a folder that is not there, has a clear word."""
    path = tmp_path / "missing" / "inbox.db"
    if content:
        path = tmp_path / "inbox.db"
        path.write_bytes(content)

    with pytest.raises(StoreUnavailable, match=r"inbox\.db"):
        await opened(path)


async def test_a_new_file_that_another_holds(tmp_path: Path) -> None:
    """F22, F43: an open waits for the other's lock, and says so where it is not given back."""
    path = tmp_path / "inbox.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await SQLiteStore(path, busy_timeout_s=0.05).open()

    opening = asyncio.ensure_future(opened(path))
    done, _ = await asyncio.wait([opening], timeout=0.05)
    assert not done
    other.execute("ROLLBACK")
    other.close()
    store = await opening
    assert not (await store.add(event(), PLAN)).duplicate
    await store.close()


async def test_an_older_sqlite_has_no_strict_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: the schema works without them."""
    monkeypatch.setattr("submitter.storage.migrations.STRICT_SINCE", (99,))
    store = await opened(tmp_path / "inbox.db")

    await store.add(event(), PLAN)

    assert await store.event(event().id) == event()
    await store.close()
    connection = sqlite3.connect(store.path)
    tables = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert tables
    assert not [sql for (sql,) in tables if "STRICT" in sql]
    connection.close()


async def test_a_file_that_was_damaged_meanwhile(tmp_path: Path) -> None:
    """F20: reads and writes that cannot be done say so, each in one error."""
    store = await opened(tmp_path / "inbox.db")
    with sqlite3.connect(store.path) as connection:
        connection.execute("DROP TABLE pause")
    connection.close()

    with pytest.raises(StoreUnavailable, match="pause"):
        await store.next_due(["keep"])
    with pytest.raises(StoreUnavailable, match="pause"):
        await store.pause("keep", NOW)
    assert not (await store.add(event(), PLAN)).duplicate
    await store.close()


async def test_two_stores_migrate_at_once(tmp_path: Path) -> None:
    """F43: one makes the schema, the others wait for it, and none takes it for another's file."""
    for number in range(20):
        stores = await asyncio.gather(*(opened(tmp_path / f"{number}.db") for _ in range(6)))

        receipts = [await store.add(event(), PLAN) for store in stores]

        assert [receipt.duplicate for receipt in receipts] == [False] + [True] * 5
        for store in stores:
            await store.close()


async def test_a_bad_neighbour_does_not_fail_the_group(tmp_path: Path) -> None:
    """F20: an event that cannot be written fails alone, whoever commits with it."""
    store = await opened(tmp_path / "inbox.db")
    bad = event("bad", model="\ud800")

    answers = await asyncio.gather(
        store.add(event("one"), PLAN),
        store.add(bad, PLAN),
        store.add(event("two"), PLAN),
        return_exceptions=True,
    )

    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    assert [listed.event.subject for listed in await store.events()] == ["two", "one"]
    await store.close()


async def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """F16: bodies hold prompts, so nobody else reads the database or its log."""
    store = SQLiteStore(tmp_path / "new.db")
    await store.open()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600}


async def test_one_group_of_new_repeated_and_stored_events(tmp_path: Path) -> None:
    """F3: whatever is mixed in one transaction, each event is new once, with its own dispatches."""
    store = SQLiteStore(tmp_path / "mixed.db")
    await store.open()
    plans: dict[str, Plan] = {"a": {"h": ()}, "b": {"h": (), "i": ("h",)}, "c": {}, "d": {"h": ()}}
    events = {name: Event(f"s:{name}:completed", "s", "prediction.completed") for name in "abcd"}
    await store.add(events["b"], plans["b"])
    order = ["a", "a", "b", "c", "d", "c", "d", "a"]
    receipts = await asyncio.gather(*(store.add(events[name], plans[name]) for name in order))
    assert [not receipt.duplicate for receipt in receipts] == [
        True, False, False, True, True, False, False, False,
    ]  # fmt: skip
    for name, plan in plans.items():
        found = await store.dispatches(events[name].id)
        assert {each.handler: each.after for each in found} == dict(plan)
    await store.close()
