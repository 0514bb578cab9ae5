"""Waits end by what the ledger is told, whoever tells it, and whenever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from submitter.errors import LedgerUnavailable, StillRunning
from submitter.ledger.base import Entry, Ledger, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from submitter.reconcile.deliver import ReconcileReport
from submitter.reconcile.schedule import Schedule
from submitter.results.wait import WaiterRegistry
from tests.support.cuttable_transport import BOTH_LEDGERS, NOW, intended, intent
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

QUICK = Schedule(0.6)
SLOW = Schedule(10_000.0)
"""Nothing happens by a timer in the time of a test."""


@dataclass
class Rounds:
    """Stands where the reconciler does: counts, and fails when told to."""

    keys: list[Sequence[str] | None] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    report: ReconcileReport = field(default_factory=ReconcileReport)

    async def round(self, *, keys: Sequence[str] | None = None) -> ReconcileReport:
        self.keys.append(keys)
        if self.failures:
            raise self.failures.pop(0)
        return self.report


class Told:
    """Stands where the feed does: keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.runs = 0

    def ask(self, task_id: str) -> None:
        self.asked.append(task_id)

    async def run(self) -> None:
        self.runs += 1
        await asyncio.Event().wait()


@dataclass
class Tale:
    """A ledger, and what happens in it."""

    ledger: Ledger
    waiting: WaiterRegistry
    rounds: Rounds
    feed: Told

    async def submitted(self, *keys: str) -> None:
        for key in keys:
            await intended(self.ledger, intent(key, NOW), NOW)

    async def accepted(self, *keys: str) -> None:
        await self.submitted(*keys)
        for key in keys:
            task = Prediction(f"task-{key}", "created")
            await self.ledger.accept(key, task, NOW, expected_at=NOW + 300)

    async def finish(self, *keys: str, by_key: bool = True) -> None:
        results = [
            Result(Prediction(f"task-{key}", "completed"), key if by_key else None) for key in keys
        ]
        await self.ledger.finish(results, NOW + 1)

    async def wait(self, key: str) -> Entry:
        async with asyncio.timeout(20):
            return await self.waiting.ended(key)


@pytest.fixture
async def tale(ledger: Ledger) -> AsyncIterator[Tale]:
    rounds, feed = Rounds(), Told()
    waiting = WaiterRegistry(ledger, rounds, QUICK, feed)  # type: ignore[arg-type]
    yield Tale(ledger, waiting, rounds, feed)
    await waiting.stop()


@BOTH_LEDGERS
async def test_an_end_after_the_wait_began(tale: Tale) -> None:
    """Whoever waits is woken by the end, told by key or by task id."""
    await tale.accepted("a", "b")
    waits = [asyncio.create_task(tale.wait(key)) for key in "ab"]
    await asyncio.sleep(0.02)
    await tale.finish("a")
    await tale.finish("b", by_key=False)
    assert [(await wait).task_id for wait in waits] == ["task-a", "task-b"]


@BOTH_LEDGERS
async def test_an_end_before_the_wait_began(tale: Tale) -> None:
    """A result that came first is found at once."""
    await tale.accepted("a")
    await tale.finish("a")
    assert (await tale.wait("a")).status == "completed"


@BOTH_LEDGERS
async def test_an_end_between_two_waits(tale: Tale) -> None:
    """Also where the process has been following for long."""
    await tale.accepted("a", "b")
    first = asyncio.create_task(tale.wait("a"))
    await asyncio.sleep(0.02)
    await tale.finish("b")
    await tale.finish("a")
    await first
    assert (await tale.wait("b")).task_id == "task-b"


@BOTH_LEDGERS
async def test_a_result_that_is_faster_than_the_answer(tale: Tale) -> None:
    """F28: finished by the key of its webhook's token, before the task's id was known."""
    await tale.submitted("a")
    wait = asyncio.create_task(tale.wait("a"))
    await asyncio.sleep(0.02)
    await tale.finish("a")
    assert (await wait).task_id == "task-a"


@BOTH_LEDGERS
async def test_a_wait_before_the_submit(tale: Tale) -> None:
    """A key may be waited for before it is in the ledger."""
    wait = asyncio.create_task(tale.wait("a"))
    await asyncio.sleep(0.02)
    await tale.accepted("a")
    await tale.finish("a")
    assert (await wait).state is State.FINISHED


@BOTH_LEDGERS
async def test_a_submission_that_created_nothing(tale: Tale) -> None:
    """A rejection ends the wait too, before it began or later."""
    await tale.submitted("before", "later")
    await tale.ledger.reject("before", "no", NOW)
    assert (await tale.wait("before")).state is State.REJECTED
    wait = asyncio.create_task(tale.wait("later"))
    await asyncio.sleep(0.02)
    await tale.ledger.mark_unknown("later", "lost", NOW, ask_at=NOW)
    await tale.ledger.reject("later", "no", NOW)
    assert (await wait).reason == "no"


@BOTH_LEDGERS
async def test_a_guess_that_is_taken_back(tale: Tale) -> None:
    """F32: its task proves to be another's, and it created nothing: the wait ends all the same."""
    await tale.submitted("a", "b")
    await tale.ledger.mark_unknown("a", "lost", NOW, ask_at=NOW)
    task = Prediction("task-b", "created")
    await tale.ledger.accept("a", task, NOW, expected_at=NOW + 300, guessed=True)
    wait = asyncio.create_task(tale.wait("a"))
    await until(lambda: "task-b" in tale.feed.asked)
    await tale.ledger.accept("b", task, NOW, expected_at=NOW + 300)
    await tale.ledger.reject("a", "no", NOW)
    assert (await wait).state is State.REJECTED


async def test_two_who_wait_for_one(tale: Tale) -> None:
    """Both are told; one that leaves takes nothing from the other."""
    await tale.accepted("a")
    waits = [asyncio.create_task(tale.wait("a")) for _ in range(3)]
    await asyncio.sleep(0.02)
    waits[1].cancel()
    await tale.finish("a")
    done = await asyncio.gather(*waits, return_exceptions=True)
    assert [isinstance(each, Entry) for each in done] == [True, False, True]


@BOTH_LEDGERS
async def test_two_thousand_waits(ledger: Ledger) -> None:
    """However many wait, each is looked up once and told once."""
    counted, keys = Counting(ledger), [f"k{number}" for number in range(2000)]
    waiting = WaiterRegistry(counted, Rounds(), SLOW, None)  # type: ignore[arg-type]
    tale = Tale(ledger, waiting, Rounds(), Told())
    async with asyncio.timeout(120):
        await asyncio.gather(*(ledger.intend(intent(key, NOW), Limits(), NOW) for key in keys))
        waits = [waiting.ended(key) for key in keys]
        await until(lambda: counted.looked_up == 2000)
        for start in range(0, 2000, 100):
            await tale.finish(*keys[start : start + 100])
            await asyncio.sleep(0)
        entries = await asyncio.gather(*waits)
    await waiting.stop()
    assert [entry.key for entry in entries] == keys
    assert counted.looked_up <= 4000
    assert counted.given == 2000


class Counting:
    """A ledger, and how much was read from it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.given = self.looked_up = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        self.looked_up += len(keys)
        return await self.ledger.find(keys)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        entries = await self.ledger.finished(after, limit=limit)
        self.given += len(entries)
        return entries


async def test_what_is_known_is_not_looked_up_again(ledger: Ledger) -> None:
    """A task that runs is not looked up at each change; its place in the order will tell."""
    counted = Counting(ledger)
    waiting = WaiterRegistry(counted, Rounds(), SLOW, None)  # type: ignore[arg-type]
    tale = Tale(ledger, waiting, Rounds(), Told())
    await tale.accepted(*[f"k{number}" for number in range(50)])
    waits = [waiting.ended(f"k{number}") for number in range(50)]
    await asyncio.sleep(0.02)
    for number in range(50):
        await tale.finish(f"k{number}")
        await asyncio.sleep(0)
    await asyncio.gather(*waits)
    await waiting.stop()
    assert counted.looked_up == 50


async def test_following(tale: Tale) -> None:
    """A follower is told of every end, in order, whoever submitted it; and of the stop."""
    await tale.accepted("before", "a", "b")
    await tale.finish("before")
    told: list[str | None] = []
    with tale.waiting.following(lambda entry: told.append(entry.key if entry else None)):
        await asyncio.sleep(0.02)
        await tale.finish("b", "a")
        await until(lambda: len(told) == 2)
        await tale.waiting.stop()
    assert told == ["b", "a", None]


async def test_the_receiver_is_asked_about_what_it_may_have_heard(tale: Tale) -> None:
    """What came before the task's id was written down; once a task."""
    await tale.accepted("a")
    await tale.submitted("b")
    waits = [tale.waiting.ended(key) for key in "ab"]
    await until(lambda: tale.feed.asked == ["task-a"])
    await tale.ledger.accept("b", Prediction("task-b", "created"), NOW, expected_at=NOW + 300)
    await until(lambda: tale.feed.asked == ["task-a", "task-b"])
    await tale.finish("a", "b")
    await asyncio.gather(*waits)
    assert tale.feed.runs == 1


async def test_only_what_is_waited_for_is_reconciled(tale: Tale) -> None:
    """The API is asked for the keys that somebody here waits for; without, for nothing."""
    await tale.accepted("a", "b", "c")
    await tale.finish("c")
    await tale.wait("c")
    tale.rounds.keys.clear()
    waits = [tale.waiting.ended(key) for key in "ab"]
    await until(lambda: len(tale.rounds.keys) > 1)
    assert all(set(keys or ()) == {"a", "b"} for keys in tale.rounds.keys)
    await tale.finish("a", "b")
    await asyncio.gather(*waits)
    await asyncio.sleep(0.05)
    count = len(tale.rounds.keys)
    await asyncio.sleep(0.1)
    assert len(tale.rounds.keys) == count


@pytest.mark.parametrize("failure", [LedgerUnavailable("away"), ValueError("SECRET")])
async def test_a_round_that_fails_ends_no_wait(
    tale: Tale, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """F16: it is told by its kind where it is not ours, and the waits go on."""
    tale.rounds.failures = [failure]
    await tale.accepted("a")
    wait = tale.waiting.ended("a")
    await until(lambda: len(tale.rounds.keys) > 2)
    await tale.finish("a")
    await wait
    assert "waiting.failed" in caplog.text
    assert "SECRET" not in caplog.text


async def test_questions_that_fail_are_logged(tale: Tale, caplog: pytest.LogCaptureFixture) -> None:
    """What a round could not learn is told while somebody waits for it."""
    tale.rounds.report = ReconcileReport(failed=2, error="the API key was refused")
    wait = tale.waiting.ended("a")
    await until(lambda: bool(caplog.text))
    wait.cancel()
    assert "reconcile.failed number=2 error=the API key was refused" in caplog.text


class Away(MemoryLedger):
    """A ledger that may be away."""

    away = False

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        self._fail()
        return await super().find(keys)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        self._fail()
        return await super().finished(after, limit=limit)

    async def last_place(self) -> int:
        self._fail()
        return await super().last_place()

    def _fail(self) -> None:
        if self.away:
            raise LedgerUnavailable("the disk is full")


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_a_ledger_that_is_away_for_a_while(from_the_start: bool) -> None:
    """F20: waits outlive it, and lose nothing of what happened meanwhile."""
    ledger = Away()
    await ledger.open()
    waiting = WaiterRegistry(ledger, Rounds(), QUICK, None)  # type: ignore[arg-type]
    tale = Tale(ledger, waiting, Rounds(), Told())
    await tale.accepted("a", "b")
    ledger.away = from_the_start
    waits = [asyncio.create_task(tale.wait(key)) for key in "ab"]
    await asyncio.sleep(0.02)
    ledger.away = True
    await tale.finish("a", "b")
    await asyncio.sleep(0.05)
    assert not any(wait.done() for wait in waits)
    ledger.away = False
    await asyncio.gather(*waits)
    await waiting.stop()


async def test_a_stop_ends_all_waits(tale: Tale) -> None:
    """Whoever waits is told that the task goes on; new waits are refused."""
    await tale.accepted("a")
    waits = [asyncio.create_task(tale.wait(key)) for key in ("a", "a", "b")]
    await asyncio.sleep(0.02)
    await tale.waiting.stop()
    for wait in waits:
        with pytest.raises(StillRunning):
            await wait
    with pytest.raises(RuntimeError, match="closed"):
        tale.waiting.ended("a")
    await tale.waiting.stop()


async def test_nobody_who_waits_leaves_nothing_behind(tale: Tale) -> None:
    """F45: cancelled waits are forgotten."""
    waits = [tale.waiting.ended(f"k{number}") for number in range(100)]
    await asyncio.sleep(0.02)
    for wait in waits:
        wait.cancel()
    await until(lambda: not (tale.waiting._waits or tale.waiting._new or tale.waiting._unsettled))
