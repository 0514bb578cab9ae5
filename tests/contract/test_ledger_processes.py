"""The promises over all processes and objects that share one file, also with the inbox."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from receiver.stores.sqlite import SQLiteStore
from submitter.ledger.base import LimitReached, Limits
from submitter.ledger.sqlite import SQLiteLedger
from tests.support.events import PLAN, event
from tests.support.paths import ROOT
from tests.support.submissions import NOW, UNLIMITED, accepted, intended, intent, only, result

PROCESSES = 3


async def start(job: str, *arguments: object) -> Process:
    """A process that does one job of `ledger_process`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.ledger_process",
        job,
        *map(str, arguments),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def told(process: Process, word: bytes = b"") -> Any:
    """What it prints at its end."""
    out, err = await process.communicate(word)
    assert process.returncode == 0, err.decode()
    return json.loads(out.splitlines()[-1])


async def opened(path: Path) -> SQLiteLedger:
    """A ledger on a file."""
    ledger = SQLiteLedger(path)
    await ledger.open()
    return ledger


async def test_of_parallel_intents_of_processes_one_is_fresh(tmp_path: Path) -> None:
    """Promise 1: three processes that start at once on a new file share forty keys."""
    path = tmp_path / "ledger.db"
    processes = [await start("intend", path, n * 13, 40) for n in range(PROCESSES)]

    fresh = Counter(chain.from_iterable([await told(process) for process in processes]))

    assert fresh == {f"k{n}": 1 for n in range(40)}


async def test_limits_hold_for_all_processes_together(tmp_path: Path) -> None:
    """Promise 1: seven a minute are seven, whoever asks."""
    processes = [await start("crowd", tmp_path / "x.db", f"p{n}", 7) for n in range(PROCESSES)]

    assert sum([await told(process) for process in processes]) == 7


async def test_due_entries_are_shared_between_processes(tmp_path: Path) -> None:
    """Promises 4, 5: each is taken once, and their places have no gap."""
    ledger = await opened(tmp_path / "ledger.db")
    await asyncio.gather(*(intended(ledger, f"k{n}") for n in range(60)))
    processes = [await start("take", ledger.path, "", 4) for _ in range(PROCESSES)]

    taken = Counter(chain.from_iterable([await told(process) for process in processes]))

    assert taken == {f"k{n}": 1 for n in range(60)}
    assert [entry.place for entry in await ledger.finished(0)] == list(range(1, 61))
    await ledger.close()


async def test_a_reader_misses_no_place_while_others_write(tmp_path: Path) -> None:
    """Promise 4: whoever remembers the last place has seen all before it, at any time."""
    ledger = await opened(tmp_path / "ledger.db")
    await asyncio.gather(*(intended(ledger, f"k{n}") for n in range(60)))
    processes = [await start("take", ledger.path, "", 1) for _ in range(2)]

    seen: list[int] = []
    async with asyncio.timeout(60):
        while len(seen) < 60:
            seen += [entry.place for entry in await ledger.finished(seen[-1] if seen else 0)]
    for process in processes:
        await told(process)

    assert seen == list(range(1, 61))
    await ledger.close()


async def test_another_process_wakes_who_waits(tmp_path: Path) -> None:
    """A result that a receiver of its own process records is heard of here."""
    ledger = await opened(tmp_path / "ledger.db")
    await intended(ledger)
    process = await start("finish_when_told", ledger.path, "k1", "")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    woken = asyncio.Event()
    end = ledger.subscribe(woken.set)
    # The first look wakes, in case that something had changed before it.
    async with asyncio.timeout(30):
        await woken.wait()
    woken.clear()
    assert await ledger.last_place() == 0

    telling = asyncio.ensure_future(told(process, b"\n"))
    async with asyncio.timeout(30):
        while not await ledger.last_place():
            await woken.wait()
            woken.clear()

    assert await telling == "k1"
    end()
    await ledger.close()


@pytest.mark.parametrize("first", ["ledger", "store"])
async def test_ledger_and_store_on_one_file(tmp_path: Path, first: str) -> None:
    """Either may make the file, and both find theirs in it again."""
    path = tmp_path / "wavehook.db"
    store, ledger = SQLiteStore(path), SQLiteLedger(path)
    for part in (ledger, store) if first == "ledger" else (store, ledger):
        await part.open()
    await store.add(event(), PLAN)
    entry = await accepted(ledger)
    await ledger.close()
    await store.close()

    store, ledger = SQLiteStore(path), SQLiteLedger(path)
    for part in (store, ledger):
        await part.open()
    assert await store.event(event().id) == event()
    assert await only(ledger) == entry
    await ledger.close()
    await store.close()


async def test_ledgers_and_stores_of_processes_that_start_at_once(tmp_path: Path) -> None:
    """F22, F43: on a new file, in both orders; nobody hears that the database is locked."""
    path = tmp_path / "wavehook.db"
    jobs = [("a", "ledger"), ("b", "store"), ("c", "ledger"), ("d", "store")]
    processes = [await start("beside_a_store", path, *job) for job in jobs]

    assert [await told(process) for process in processes] == [60] * 4

    ledger = await opened(path)
    assert len(await ledger.open_entries()) == 240
    await ledger.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (240,)
    connection.close()


async def test_two_ledgers_on_one_file_see_each_other(tmp_path: Path) -> None:
    """F22: limits, pauses and results are the file's, not the object's."""
    one, two = await opened(tmp_path / "ledger.db"), await opened(tmp_path / "ledger.db")
    await accepted(one)

    assert await two.intend(intent("k2"), Limits(in_flight=1), NOW) == LimitReached(None)
    assert [entry.key for entry in await two.finish([result()], NOW)] == ["k1"]
    assert await one.last_place() == 1
    await two.pause(NOW + 9)
    assert await one.intend(intent("k2"), UNLIMITED, NOW) == LimitReached(NOW + 9)
    await one.close()
    await two.close()
