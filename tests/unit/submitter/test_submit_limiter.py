"""Places for submits: so many a minute, so many at once, for all who share a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from submitter.errors import LedgerUnavailable, Unavailable
from submitter.ledger.base import Intent, IntentWritten, Ledger, LimitReached, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.ledger.sqlite import SQLiteLedger
from submitter.prediction import Prediction
from submitter.reconcile.schedule import Schedule
from submitter.submit.rate_limit import SubmitLimiter
from tests.support.clocks import Clock
from tests.support.cuttable_transport import BOTH_LEDGERS, NOW, intent
from tests.support.opening import opened
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

SCHEDULE = Schedule(300.0)


class Places:
    """A flow, and who asks it for places."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        limits: Limits | None = None,
        schedule: Schedule = SCHEDULE,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.relieved = 0
        self.flow = SubmitLimiter(
            ledger,
            limits or Limits(),
            schedule,
            relieve=self.relieve,
            clock=clock,
            random=lambda: 0.5,
        )
        self.placed: list[str] = []
        self.tasks: list[asyncio.Task[IntentWritten]] = []

    def ask(self, *keys: str) -> None:
        self.tasks += [asyncio.create_task(self.place(key)) for key in keys]

    async def place(self, key: str) -> IntentWritten:
        """A place that is held until `finish`, unless the test does otherwise."""
        answer = await self.flow.place(lambda now: intent(key, now))
        self.placed.append(key)
        return answer

    async def relieve(self) -> None:
        """The first time the ledger is away; the second time a task ends."""
        self.relieved += 1
        if self.relieved == 1:
            raise LedgerUnavailable("away")
        if self.relieved == 2:
            await self.finish(self.placed[0])
        await asyncio.Event().wait()

    async def settle(self) -> None:
        """Let everybody get as far as they can."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def finish(self, key: str) -> None:
        """The task ends, and wakes who waits."""
        self.flow.done()
        prediction = Prediction(f"task-{key}", "completed", raw={"id": key, "status": "completed"})
        await self.ledger.finish([Result(prediction, key)], self.clock())


@pytest.fixture
async def placing(ledger: Ledger) -> AsyncIterator[Callable[..., Places]]:
    made: list[Places] = []

    def make(limits: Limits | None = None, clock: Clock | None = None) -> Places:
        made.append(Places(ledger, clock or Clock(NOW), limits))
        return made[-1]

    yield make
    for places in made:
        for task in places.tasks:
            task.cancel()
        await asyncio.gather(*places.tasks, return_exceptions=True)
        await places.flow.stop()


Making = Callable[..., Places]


async def test_without_limits_all_have_a_place(placing: Making) -> None:
    """No limit, no wait; first come, first served."""
    places = placing()
    keys = [f"k{number}" for number in range(50)]
    places.ask(*keys)
    await asyncio.gather(*places.tasks)
    assert places.placed == keys


@BOTH_LEDGERS
async def test_so_many_a_minute(placing: Making) -> None:
    """The next one waits until the first of the minute is a minute old."""
    places = placing(Limits(rate=3))
    places.ask(*"abcde")
    await until(lambda: len(places.placed) == 3)
    await places.settle()
    assert places.placed == ["a", "b", "c"]
    places.clock.now += 61
    await places.finish("a")
    await until(lambda: len(places.placed) == 5)
    entries = await places.ledger.find(list("abcde"))
    assert [entry.sent_at - NOW for entry in entries.values()] == [0, 0, 0, 61, 61]


@BOTH_LEDGERS
async def test_so_many_at_once(placing: Making) -> None:
    """A place is freed by the end of a task, in the order of asking."""
    places = placing(Limits(in_flight=2))
    places.ask(*"abcd")
    await until(lambda: len(places.placed) == 2)
    await places.settle()
    assert places.placed == ["a", "b"]
    await places.finish("b")
    await until(lambda: len(places.placed) == 3)
    await places.finish("a")
    await until(lambda: len(places.placed) == 4)
    assert places.placed == ["a", "b", "c", "d"]


async def test_a_place_that_nobody_frees_is_asked_for(ledger: Ledger) -> None:
    """One question at a time, which holds up nobody, and ends with the client."""
    places = Places(ledger, Clock(NOW), Limits(in_flight=1), Schedule(0.6))
    places.ask(*"abc")
    await until(lambda: places.placed == ["a", "b"])
    await places.finish("b")
    await until(lambda: len(places.placed) == 3)
    await places.flow.stop()
    assert places.relieved == 2


@BOTH_LEDGERS
async def test_a_place_is_freed_by_a_refusal(placing: Making) -> None:
    """What created nothing takes no place."""
    places = placing(Limits(in_flight=1))
    places.ask("a", "b")
    await until(lambda: places.placed == ["a"])
    await places.ledger.reject("a", "refused", NOW)
    await until(lambda: places.placed == ["a", "b"])


@BOTH_LEDGERS
async def test_two_clients_share_the_limits(placing: Making) -> None:
    """Two processes on one ledger are one account."""
    one, other = placing(Limits(in_flight=5)), placing(Limits(in_flight=5))
    one.ask(*[f"a{number}" for number in range(10)])
    other.ask(*[f"b{number}" for number in range(10)])
    for count in range(5, 21):
        await until(lambda count=count: len(one.placed + other.placed) == count)
        open_now = await one.ledger.open_entries()
        assert len(open_now) == 5 or count > 15
        await one.finish(open_now[0].key)


async def test_over_two_ledgers_of_one_file(tmp_path: Path) -> None:
    """F22: another process's end of a task frees a place here."""
    clock = Clock(NOW)
    async with (
        opened(SQLiteLedger(tmp_path / "ledger.db")) as mine,
        opened(SQLiteLedger(tmp_path / "ledger.db")) as others,
    ):
        here = Places(mine, clock, Limits(in_flight=1))
        there = Places(others, clock, Limits(in_flight=1))
        await there.place("theirs")
        here.ask("mine")
        await there.finish("theirs")
        await until(lambda: here.placed == ["mine"])


async def test_a_key_that_is_there_takes_no_place(placing: Making) -> None:
    """A second submit under one key is told of the first, however full it is."""
    places = placing(Limits(in_flight=1))
    assert (await places.place("a")).fresh
    assert not (await places.place("a")).fresh


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_that_meets_a_wake_up_is_not_lost(placing: Making, turns: int) -> None:
    """F40: a submit that is cancelled while a slot frees ends, and does not wait for the next."""
    places = placing(Limits(in_flight=1))
    await places.place("a")
    places.ask("b")
    await places.settle()
    places.flow._woken.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    places.tasks[-1].cancel()
    await asyncio.wait({places.tasks[-1]}, timeout=5)
    assert places.tasks[-1].cancelled()


@pytest.mark.parametrize("retry_after", [None, 90.0])
async def test_a_429_pauses_all(placing: Making, retry_after: float | None) -> None:
    """F27: nobody submits until the API said, or a while that grows; another client neither."""
    places, other = placing(), placing()
    await places.place("a")
    await places.flow.refused(retry_after)
    places.flow.done()
    other.ask("b")
    await asyncio.sleep(0.05)
    assert other.placed == []
    answer = await places.ledger.intend(intent("x", NOW), Limits(), NOW)
    assert answer == LimitReached(NOW + (5.0 if retry_after is None else 90.0))
    other.clock.now += 91
    await places.finish("a")
    await until(lambda: other.placed == ["b"])


async def test_pauses_grow_and_a_burst_is_one_refusal(placing: Making) -> None:
    """Ten refusals of one moment are one; one after the pause is the next, and waits longer."""
    places = placing()
    places.ask(*[f"k{number}" for number in range(10)])
    await asyncio.gather(*places.tasks)
    waits = []
    for _ in range(3):
        for _ in range(3):
            await places.flow.refused(None)
        full = await places.ledger.intend(intent("x", places.clock()), Limits(), places.clock())
        assert isinstance(full, LimitReached)
        assert full.until is not None
        waits.append(full.until - places.clock())
        places.clock.now = full.until
    assert waits == [5.0, 10.0, 20.0]
    places.flow.accepted()
    await places.flow.refused(None)
    full = await places.ledger.intend(intent("x", places.clock()), Limits(), places.clock())
    assert full == LimitReached(places.clock() + 5.0)


async def test_a_longer_wait_that_the_api_names_is_kept(placing: Making) -> None:
    """F27: of several refusals the longest wait counts."""
    places = placing()
    await places.place("a")
    await places.flow.refused(10.0)
    await places.flow.refused(60.0)
    await places.flow.refused(20.0)
    full = await places.ledger.intend(intent("x", NOW), Limits(), NOW)
    assert full == LimitReached(NOW + 60.0)


async def test_after_a_burst_of_429_few_are_on_their_way(placing: Making) -> None:
    """Without a setting, the window is found out: halved by refusals, one more by each success."""
    places = placing()
    first = [f"k{number}" for number in range(8)]
    places.ask(*first)
    await asyncio.gather(*places.tasks)
    for _ in first:
        await places.flow.refused(0.0)
        places.flow.done()
    places.ask(*[f"later{number}" for number in range(9)])
    counts: list[int] = []
    for _ in range(4):
        await places.settle()
        new = len(places.placed) - len(first) - sum(counts)
        counts.append(new)
        for _ in range(new):
            places.flow.accepted()
            places.flow.done()
    assert counts == [1, 2, 4, 2]


class Halting(MemoryLedger):
    """Lets a test look at the moment in which an intent is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = asyncio.Event()
        self.go_on = asyncio.Event()

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        answer = await super().intend(intent, limits, now)
        self.writing.set()
        await self.go_on.wait()
        return answer


async def test_cancelled_while_it_is_written() -> None:
    """An intent that was written for somebody who left is taken back."""
    ledger = Halting()
    await ledger.open()
    places = Places(ledger, Clock(NOW))
    places.ask("a")
    await ledger.writing.wait()
    places.tasks[0].cancel()
    await asyncio.sleep(0)
    ledger.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await places.tasks[0]
    [entry] = (await ledger.find(["a"])).values()
    assert (entry.state, entry.reason) == (State.REJECTED, "cancelled before it was sent")
    assert (await places.place("b")).fresh


async def test_cancelled_twice_while_it_is_written() -> None:
    """Who is in a hurry leaves at once; the intent is taken back before the stop."""
    ledger = Halting()
    await ledger.open()
    places = Places(ledger, Clock(NOW))
    places.ask("a")
    await ledger.writing.wait()
    for _ in range(2):
        places.tasks[0].cancel()
        await asyncio.sleep(0.01)
    assert places.tasks[0].cancelled()
    ledger.go_on.set()
    await places.flow.stop()
    assert (await ledger.find(["a"]))["a"].state is State.REJECTED


async def test_a_ledger_that_fails_while_it_is_taken_back() -> None:
    """It stays open, and is settled like any lost one; nobody hears of an error."""

    class Failing(Halting):
        async def reject(self, key: str, reason: str, now: float) -> bool:
            raise LedgerUnavailable("away")

    ledger = Failing()
    await ledger.open()
    places = Places(ledger, Clock(NOW))
    places.ask("a")
    await ledger.writing.wait()
    places.tasks[0].cancel()
    ledger.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await places.tasks[0]
    assert (await ledger.find(["a"]))["a"].state is State.INTENDED


@BOTH_LEDGERS
async def test_cancelled_while_it_waits(placing: Making) -> None:
    """Who leaves while waiting leaves nothing behind, and the next one has the turn."""
    places = placing(Limits(in_flight=1))
    places.ask("a", "b", "c")
    await until(lambda: places.placed == ["a"])
    places.tasks[1].cancel()
    await asyncio.gather(places.tasks[1], return_exceptions=True)
    await places.finish("a")
    await until(lambda: places.placed == ["a", "c"])
    assert await places.ledger.find(["b"]) == {}


async def test_a_closed_client_gives_no_places(placing: Making) -> None:
    """Whoever waits at the end is told that nothing was sent; opened again, it gives places."""
    places = placing(Limits(in_flight=1))
    places.ask("a", "b", "c")
    await until(lambda: places.placed == ["a"])
    await places.flow.stop()
    for task in places.tasks[1:]:
        with pytest.raises(Unavailable, match="nothing was sent"):
            await task
    places.flow.open()
    await places.finish("a")
    assert (await places.place("d")).fresh


async def test_a_ledger_that_is_away(ledger: Ledger) -> None:
    """Who cannot write down cannot send."""
    places = Places(ledger, Clock(NOW))
    await ledger.close()
    with pytest.raises(LedgerUnavailable):
        await places.place("a")
