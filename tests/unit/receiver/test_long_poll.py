"""ResultWaiters: who waits is told, whoever stored it and whenever it came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Event
from receiver.results.long_poll import ResultWaiters
from receiver.stores.base import Store
from receiver.stores.memory import MemoryStore
from receiver.stores.sqlite import SQLiteStore
from tests.support.events import event
from tests.support.waiting import until

NOW = 1_800_000_000.0
LONG = 3600.0
"""Seconds that no test waits."""


class Counting(MemoryStore):
    """The reference store, which counts looks, and does something in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.finds = self.lasts = 0
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        self.finds += 1
        found = await super().find(ids)
        self.meanwhile()
        return found

    async def last_seq(self) -> int:
        self.lasts += 1
        if self.failure is not None:
            raise self.failure
        return await super().last_seq()


@pytest.fixture
async def store() -> Counting:
    store = Counting()
    await store.open()
    return store


@pytest.fixture
def results(store: Counting) -> ResultWaiters:
    """Looks by itself in an hour: what a test sees was told."""
    return ResultWaiters(store, poll=LONG)


def result(results: ResultWaiters, task: str = "t1") -> asyncio.Task[Event | None]:
    return asyncio.create_task(results.result(task, LONG))


def news(
    results: ResultWaiters, seq: int = 0, limit: int = 100
) -> asyncio.Task[tuple[int, list[Event]]]:
    return asyncio.create_task(results.after(seq, LONG, limit))


async def accept(store: Store, results: ResultWaiters, *events: Event) -> None:
    """What the receiver does with what is new."""
    for each in events:
        assert not (await store.add(each, {})).duplicate
        results.stored(each)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "timeout"])
async def test_a_result_that_came_before_the_wait_is_found(
    store: Counting, results: ResultWaiters, status: str
) -> None:
    """F28: every status that ends a task is its result, and is given at once."""
    await accept(store, results, event("t1", status))

    assert await results.result("t1", LONG) == event("t1", status)
    assert await results.result("t1", 0) == event("t1", status)


async def test_who_waits_is_told_at_once(store: Counting, results: ResultWaiters) -> None:
    """Each caller of each task hears of its own result."""
    waits = [result(results, task) for task in ("t1", "t2", "t1")]
    await until(lambda: store.finds == 3)

    await accept(store, results, event("t3"), event("t1"))
    assert [await waits[0], await waits[2]] == [event("t1")] * 2
    assert not waits[1].done()

    await accept(store, results, event("t2", "failed"))
    assert await waits[1] == event("t2", "failed")


async def test_what_is_stored_during_the_look_is_not_missed(
    store: Counting, results: ResultWaiters
) -> None:
    """F28: a wait registers before it looks."""
    store.meanwhile = lambda: results.stored(event("t1"))

    assert await results.result("t1", LONG) == event("t1")
    assert await results.result("t1", 0) == event("t1")


async def test_the_first_of_a_contradiction_counts(store: Counting, results: ResultWaiters) -> None:
    """F31: a task that completed and then failed has completed, whenever one asks."""
    await accept(store, results, event("t1", "failed", received_at=NOW + 1))
    await accept(store, results, event("t1", "completed", received_at=NOW))

    assert await results.result("t1", LONG) == event("t1", "completed", received_at=NOW)


@pytest.mark.parametrize(
    "other",
    [
        event("t1", "processing"),
        event("t1", "deleted"),
        event("t1", id="other:t1:completed", source="other"),
        event("t1", id="wavespeed:msg:0123", type="parked", subject=None),
    ],
    ids=["running", "deleted", "source", "parked"],
)
async def test_what_ends_no_task_is_no_result(
    store: Counting, results: ResultWaiters, other: Event
) -> None:
    """Events of other states and sources are passed over, and so is their number."""
    waiting = result(results)
    reading = news(results)
    await until(lambda: results._readers and store.finds)
    await accept(store, results, other)

    assert await results.result("t1", 0) is None
    await accept(store, results, event("t1"))
    assert await waiting == event("t1")
    assert await reading == (2, [event("t1")])


async def test_a_wait_ends_with_nothing(results: ResultWaiters) -> None:
    """No result within the time is no error."""
    assert await results.result("t1", 0) is None
    assert await results.result("t1", 0.001) is None
    assert await results.after(0, 0, 10) == (0, [])
    assert await results.after(0, 0.001, 10) == (0, [])


async def test_a_reader_begins_with_what_comes_from_now_on(
    store: Counting, results: ResultWaiters
) -> None:
    """Without a number there is one to begin with, at once."""
    await accept(store, results, event("old"))
    cursor, found = await results.after(None, LONG, 10)
    assert found == []

    reading = news(results, cursor)
    await until(lambda: results._readers)
    await accept(store, results, event("new"))

    assert await reading == (cursor + 1, [event("new")])


async def test_a_reader_goes_on_where_it_was(store: Counting, results: ResultWaiters) -> None:
    """Page by page, nothing twice and nothing left out, over stretches that do not concern it."""
    tasks = [event(f"t{n}", "processing" if n % 4 else "completed") for n in range(20)]
    await accept(store, results, *tasks)

    found: list[Event] = []
    cursor = 0
    while True:
        cursor, some = await results.after(cursor, 0, 2)
        found += some
        if not some:
            break
        assert len(some) <= 2

    assert found == tasks[::4]
    assert cursor == 20


async def test_a_number_of_another_database_begins_at_the_first(
    store: Counting, results: ResultWaiters
) -> None:
    """A reader's number hides nothing, also where the file was replaced meanwhile."""
    await accept(store, results, event("t1"))

    assert await results.after(500, LONG, 10) == (1, [event("t1")])


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[SQLiteStore, SQLiteStore]]:
    """Two stores on one file: as two processes have."""
    stores = SQLiteStore(tmp_path / "inbox.db"), SQLiteStore(tmp_path / "inbox.db")
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


async def test_what_another_process_stores_is_found(
    pair: tuple[SQLiteStore, SQLiteStore],
) -> None:
    """F22: a wait ends too where the webhook went to another process."""
    ours, theirs = pair
    results = ResultWaiters(ours, poll=0.01)
    waiting, reading = result(results), news(results)
    await until(lambda: results._tasks and results._readers)

    await theirs.add(event("t1"), {})

    async with asyncio.timeout(60):
        assert await waiting == event("t1")
        assert await reading == (1, [event("t1")])


async def test_one_look_for_all_who_wait(store: Counting) -> None:
    """A hundred callers cost the database as many looks as one, and none where nothing is new."""
    results = ResultWaiters(store, poll=0.001)
    waits = [result(results, f"t{n}") for n in range(100)]
    await until(lambda: store.lasts > 20)
    assert store.finds == 101

    for n in range(100):
        await store.add(event(f"t{n}"), {})
    await asyncio.gather(*waits)

    assert store.finds <= 103


async def test_nobody_looks_where_nobody_waits(store: Counting) -> None:
    """Without callers the database is left in peace."""
    results = ResultWaiters(store, poll=0.001)
    await results.result("t1", 0.01)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "wavehook-results"]

    lasts = store.lasts
    waiting = result(results)
    await until(lambda: store.lasts > lasts)
    await store.add(event("t1"), {})
    assert await waiting == event("t1")


async def test_a_caller_that_leaves_leaves_nothing_behind(
    store: Counting, results: ResultWaiters
) -> None:
    """Cancelled waits are forgotten, and others go on."""
    leaving, staying, reading = result(results), result(results), news(results)
    await until(lambda: store.finds == 2 and results._readers)
    for task in (leaving, reading):
        task.cancel()
    await asyncio.gather(leaving, reading, return_exceptions=True)
    assert not results._readers

    await accept(store, results, event("t1"))

    assert await staying == event("t1")
    assert not results._tasks
    assert results._polling is None


async def test_a_stop_ends_every_wait(store: Counting, results: ResultWaiters) -> None:
    """F40: with nothing yet, at once; who asks later is told what is there and does not wait."""
    waits, reading = [result(results, f"t{n}") for n in range(3)], news(results)
    await until(lambda: store.finds == 3 and results._readers)

    results.close()

    assert await asyncio.gather(*waits) == [None] * 3
    assert await reading == (0, [])
    assert await results.result("t1", LONG) is None
    assert await results.after(0, LONG, 10) == (0, [])
    await store.add(event("t1"), {})
    assert await results.result("t1", LONG) == event("t1")


async def test_after_a_stop_it_can_be_opened_again(store: Counting, results: ResultWaiters) -> None:
    """F41: what was closed waits again, as after a restart inside one process."""
    results.close()
    results.open()
    waiting = result(results)
    await until(lambda: store.finds)

    await accept(store, results, event("t1"))

    assert await waiting == event("t1")


def test_it_serves_one_event_loop_after_another() -> None:
    """F41: where every invocation has a loop of its own."""
    store = MemoryStore()
    results = ResultWaiters(store, poll=0.001)

    async def invocation(task: str) -> Event | None:
        await store.open()
        waiting = result(results, task)
        await until(lambda: results._tasks)
        await store.add(event(task), {})
        return await waiting

    assert [asyncio.run(invocation(task)) for task in ("t1", "t2")] == [event("t1"), event("t2")]


async def test_a_store_that_is_away_is_said_to_the_caller(
    store: Counting, results: ResultWaiters
) -> None:
    """F20: whoever asks hears it."""
    await store.close()

    for ask in (results.result("t1", LONG), results.after(None, 0, 1), results.after(0, 0, 1)):
        with pytest.raises(StoreUnavailable):
            await ask


@pytest.mark.parametrize("failure", [StoreUnavailable("disk"), RuntimeError("ours")])
async def test_a_store_that_fails_meanwhile_is_said_to_all(
    store: Counting, failure: Exception
) -> None:
    """F20: a look that fails ends the waits; nobody waits for what cannot be seen."""
    results = ResultWaiters(store, poll=0.01)
    waits: list[asyncio.Task[Any]] = [result(results), result(results, "t2"), news(results)]
    await until(lambda: store.finds == 2 and results._readers)

    store.failure = failure

    answers = await asyncio.gather(*waits, return_exceptions=True)
    assert answers == [failure] * 3
    store.failure = None
    waiting = result(results)
    await until(lambda: results._tasks)
    await store.add(event("t1"), {})
    assert await waiting == event("t1")
