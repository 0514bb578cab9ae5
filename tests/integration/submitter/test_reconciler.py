"""The reconciler against the simulator: what nobody told is found, by few questions."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest

from submitter.api.client import ApiClient
from submitter.errors import ApiError, LedgerUnavailable, Unavailable
from submitter.ledger.base import Entry, Ledger, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import JSON, Prediction
from submitter.reconcile.deliver import FoundResult, ReconcileEvent
from submitter.reconcile.reconciler import MAX_CONCURRENT_QUERIES, Reconciler
from submitter.reconcile.schedule import API_RETENTION_S, Schedule
from submitter.simulator import Simulator
from tests.support.clocks import Clock
from tests.support.cuttable_transport import (
    BOTH_LEDGERS,
    IMAGE,
    KLING,
    NOW,
    PRO,
    Wire,
    answering,
    intended,
    intent,
)
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

SCHEDULE = Schedule(300.0)
HOUR = 3600.0


def refusing(status: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"message": "no"}, headers=named)


class Inbox:
    """Takes results once, as the receiver's inbox does."""

    def __init__(self) -> None:
        self.taken: dict[str, FoundResult] = {}
        self.failing: set[str] = set()

    async def deliver(self, found: FoundResult) -> bool:
        if found.prediction.id in self.failing:
            raise ValueError("a SECRET prompt")
        new = found.prediction.id not in self.taken
        self.taken.setdefault(found.prediction.id, found)
        return new

    async def known(self, ids: Sequence[str]) -> Mapping[str, Prediction]:
        return {id: self.taken[id].prediction for id in ids if id in self.taken}


@dataclass
class World:
    """A reconciler and all that is around it."""

    sim: Simulator
    ledger: Ledger
    clock: Clock
    wire: Wire
    calls: ApiClient
    inbox: Inbox = field(default_factory=Inbox)
    told: list[ReconcileEvent] = field(default_factory=list)

    def reconciler(self, *, inbox: bool = True, schedule: Schedule = SCHEDULE) -> Reconciler:
        return Reconciler(
            self.calls,
            self.ledger,
            schedule=schedule,
            deliver=self.inbox.deliver if inbox else None,
            inbox=self.inbox.known if inbox else None,
            tell=self.told.append,
            clock=self.clock,
            random=lambda: 0.5,
        )

    async def accepted(self, key: str, **more: Any) -> str:
        """A submission whose task is known; its id."""
        one = intent(key, self.clock(), **more)
        await intended(self.ledger, one, self.clock())
        task = await self.calls.post(one.model, one.input, None, timeout=60)
        wait = SCHEDULE.expected([], webhook=one.webhook)
        await self.ledger.accept(key, task, self.clock(), expected_at=self.clock() + wait)
        return task.id

    async def lost(self, key: str, *, created: bool = True, **more: Any) -> str | None:
        """A submission whose answer was lost; the id of its task, if there is one."""
        one = intent(key, self.clock(), **more)
        await intended(self.ledger, one, self.clock())
        task = await self.calls.post(one.model, one.input, None, timeout=60) if created else None
        look = SCHEDULE.look(0) or 0.0
        await self.ledger.mark_unknown(key, "ReadError", self.clock(), ask_at=self.clock() + look)
        return task.id if task else None

    async def posted(self, prompt: str) -> str:
        """The id of another tool's task."""
        input: dict[str, JSON] = {"prompt": prompt, "image": IMAGE}
        return (await self.calls.post(KLING, input, None, timeout=60)).id

    async def entry(self, key: str) -> Entry:
        return (await self.ledger.find([key]))[key]

    def names(self) -> Counter[str]:
        return Counter(told.name for told in self.told)

    @property
    def asked(self) -> int:
        return self.wire.count("GET", "/result")

    @property
    def looks(self) -> int:
        return self.wire.count("POST", "/predictions")


@pytest.fixture
async def world(ledger: Ledger) -> AsyncIterator[World]:
    clock, wire = Clock(NOW), Wire()
    async with (
        Simulator(clock=clock) as sim,
        ApiClient("key", sim.url, transport=wire, clock=clock) as calls,
    ):
        yield World(sim, ledger, clock, wire, calls)


# -- results that are overdue ------------------------------------------------------------------


async def test_what_is_not_overdue_is_not_asked_for(world: World) -> None:
    """A webhook has its time before anybody asks."""
    await world.accepted("k")
    world.clock.now += 299
    report = await world.reconciler().round()
    assert (report.asked, world.asked) == (0, 0)


@BOTH_LEDGERS
async def test_an_overdue_result_is_asked_for_and_delivered(world: World) -> None:
    """F29: a webhook that never came; the result goes to the inbox with context and key."""
    task = await world.accepted("k", context={"user": 7})
    world.clock.now += 301
    report = await world.reconciler().round()
    assert (report.asked, report.found, report.tasks) == (1, 1, [task])
    found = world.inbox.taken[task]
    assert (found.key, found.context, found.prediction.status) == ("k", {"user": 7}, "completed")
    entry = await world.entry("k")
    assert (entry.state, entry.delivered) == (State.FINISHED, True)
    assert world.names() == {"reconcile.asked": 1, "reconcile.found": 1}
    assert (await world.reconciler().round()).asked == 0


async def test_a_running_task_is_asked_for_once_a_distance(world: World) -> None:
    """F29: distances grow; between them nobody asks, however many rounds there are."""
    task = await world.accepted("k")
    world.wire.meddle = still_running(task)
    reconciler = world.reconciler()
    asked_at: list[float] = []
    world.clock.now = NOW + 295
    for _ in range(600):
        world.clock.now += 5
        before = world.asked
        await reconciler.round()
        asked_at += [world.clock.now - NOW] * (world.asked - before)
    distances = [later - earlier for earlier, later in pairwise(asked_at)]
    assert asked_at[0] == 300
    assert distances == [30, 60, 120, 240, 480, 960]
    assert (await world.entry("k")).asks == 7


def still_running(task_id: str) -> Any:
    async def meddle(request: httpx.Request) -> httpx.Response | None:
        if task_id not in request.url.path:
            return None
        return httpx.Response(200, json={"code": 200, "data": {"id": task_id, "status": "warming"}})

    return meddle


@BOTH_LEDGERS
async def test_two_askers_share(world: World) -> None:
    """No two processes ask for one task, and both get something to do."""
    for number in range(6):
        await world.accepted(f"k{number}")
    world.clock.now += 301
    one, other = world.reconciler(), world.reconciler()
    reports = await asyncio.gather(
        one.round(keys=["k0", "k1", "k2", "k3"]), other.round(keys=["k2", "k3", "k4", "k5"])
    )
    assert sum(report.asked for report in reports) == 6
    assert world.asked == 6


@BOTH_LEDGERS
async def test_without_an_inbox_the_ledger_keeps_it(world: World) -> None:
    """F30: a caller's process finds a result; the one with the inbox hands it over, unasked."""
    task = await world.accepted("k", context=[1])
    world.clock.now += 301
    report = await world.reconciler(inbox=False).round()
    assert (report.found, world.inbox.taken) == (1, {})
    assert not (await world.entry("k")).delivered
    await world.reconciler().round()
    assert not world.inbox.taken  # its webhook may be on its way
    world.clock.now += 6
    report = await world.reconciler().round()
    assert (report.asked, report.tasks) == (0, [task])
    assert (world.inbox.taken[task].context, world.inbox.taken[task].key) == ([1], "k")
    assert (await world.entry("k")).delivered
    assert world.asked == 1


async def test_without_a_webhook_the_inbox_gets_nothing(world: World) -> None:
    """Who asked for no webhook wants no event; it is asked for by the API's own advice."""
    await world.accepted("k", webhook=False)
    world.clock.now += 6
    await world.reconciler().round()
    world.clock.now += HOUR
    report = await world.reconciler().round()
    assert (world.asked, report.found, world.inbox.taken) == (2, 1, {})
    entry = await world.entry("k")
    assert (entry.state, entry.delivered) == (State.FINISHED, True)


async def test_the_inbox_is_asked_first(world: World) -> None:
    """What the inbox has already is no question to the API."""
    task = await world.accepted("k")
    done = Prediction(task, "completed", model=KLING, raw={"id": task, "status": "completed"})
    await world.inbox.deliver(FoundResult(done))
    world.clock.now += 301
    report = await world.reconciler().round()
    assert (report.asked, world.asked) == (0, 0)
    entry = await world.entry("k")
    assert (entry.state, entry.delivered) == (State.FINISHED, True)


async def test_a_young_task_that_the_api_does_not_know(world: World) -> None:
    """A 404 for a task that was just created is asked again, not believed."""
    task = await world.accepted("k")
    world.clock.now += 301
    world.wire.meddle = answering(task, refusing(404))
    reconciler = world.reconciler()
    await reconciler.round()
    assert (await world.entry("k")).state is State.ACCEPTED
    world.clock.now += 31
    assert (await reconciler.round()).found == 1


@BOTH_LEDGERS
async def test_an_old_task_that_the_api_no_longer_knows(world: World) -> None:
    """After 7 days there is nothing to wait for; the inbox gets no event about nothing."""
    await world.accepted("k")
    world.clock.now += API_RETENTION_S + HOUR
    report = await world.reconciler().round()
    assert world.inbox.taken == {}
    entry = await world.entry("k")
    assert (entry.state, entry.status, entry.delivered) == (State.FINISHED, "deleted", True)
    assert entry.prediction is not None
    assert "7 days" in str(entry.prediction.error)
    assert report.found == 1


# -- failures ----------------------------------------------------------------------------------


async def test_poisoned_tasks_do_not_hold_up_others(world: World) -> None:
    """Tasks whose question always fails are asked less and less, the others are found."""
    bad = [await world.accepted(f"bad{number}") for number in range(MAX_CONCURRENT_QUERIES - 1)]
    world.clock.now += 1
    good = [await world.accepted(f"good{number}") for number in range(4)]

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        ill = [
            status
            for task, status in zip(bad, (500, 400, 502), strict=True)
            if task in request.url.path
        ]
        return refusing(ill[0]) if ill else None

    world.wire.meddle = meddle
    world.clock.now += 301
    report = await world.reconciler().round()
    assert sorted(world.inbox.taken) == sorted(good)
    assert (report.failed, report.found) == (3, 4)
    assert [(await world.entry(f"bad{number}")).asks for number in range(3)] == [1, 1, 1]


async def test_an_api_that_is_away_is_left_alone(world: World) -> None:
    """Where no question is answered, the round ends; the rest comes later."""
    for number in range(3 * MAX_CONCURRENT_QUERIES):
        await world.accepted(f"k{number}")
    world.clock.now += 301
    world.wire.meddle = away
    report = await world.reconciler().round()
    assert (report.asked, report.failed) == (MAX_CONCURRENT_QUERIES, MAX_CONCURRENT_QUERIES)
    assert "not available" in (report.error or "")
    world.wire.meddle = None
    world.clock.now += SCHEDULE.hold + 1
    assert (await world.reconciler().round()).found == 3 * MAX_CONCURRENT_QUERIES


async def away(request: httpx.Request) -> httpx.Response | None:
    raise httpx.ConnectError("away")


async def test_a_slow_api_is_not_asked_past_the_hold(world: World) -> None:
    """What an asker cannot ask in its time is somebody else's."""
    for number in range(3 * MAX_CONCURRENT_QUERIES):
        await world.accepted(f"k{number}")
    world.clock.now += 301

    async def slow(request: httpx.Request) -> None:
        world.clock.now += SCHEDULE.hold / 6

    world.wire.meddle = slow
    report = await world.reconciler().round()
    assert MAX_CONCURRENT_QUERIES <= report.asked < 3 * MAX_CONCURRENT_QUERIES


@pytest.mark.parametrize(("headers", "wait"), [({"retry_after": "900"}, 900.0), ({}, 5.0)])
async def test_a_429_pauses_all(world: World, headers: dict[str, str], wait: float) -> None:
    """F27: too many questions: nobody submits and nobody asks until the API said, or a while."""
    for number in range(2 * MAX_CONCURRENT_QUERIES):
        await world.accepted(f"k{number}")
    world.clock.now += 301
    world.wire.meddle = limited(headers)
    reconciler = world.reconciler()
    report = await reconciler.round()
    assert report.asked == MAX_CONCURRENT_QUERIES
    full = await world.ledger.intend(intent("new", world.clock()), Limits(), world.clock())
    assert getattr(full, "until", None) == world.clock() + wait
    world.wire.meddle = None
    before = world.asked
    world.clock.now += wait - 1
    await reconciler.round()
    assert world.asked == before
    world.clock.now += SCHEDULE.hold + 2
    assert (await reconciler.round()).found == 2 * MAX_CONCURRENT_QUERIES


def limited(headers: dict[str, str]) -> Any:
    async def meddle(request: httpx.Request) -> httpx.Response:
        return refusing(429, **headers)

    return meddle


async def test_a_wrong_key_is_not_tried_at_every_tick(world: World) -> None:
    """A refused key stops the round, and the next ones for a while."""
    for number in range(2 * MAX_CONCURRENT_QUERIES):
        await world.accepted(f"k{number}")
    world.clock.now += 301
    world.wire.meddle = answering("/result", *[refusing(401)] * 100)
    reconciler = world.reconciler()
    await reconciler.round()
    before = world.asked
    assert before == MAX_CONCURRENT_QUERIES
    world.clock.now += 5
    await reconciler.round()
    assert world.asked == before
    assert "WAVESPEED_API_KEY" in (world.told[-1].error or "")


async def test_an_event_that_the_inbox_refuses_holds_up_no_other(world: World) -> None:
    """F16: what the inbox fails at is told by its kind alone, and tried again."""
    tasks = [await world.accepted(f"k{number}") for number in range(3)]
    world.inbox.failing = {tasks[0]}
    world.clock.now += 301
    report = await world.reconciler().round()
    assert (sorted(world.inbox.taken), report.failed) == (sorted(tasks[1:]), 1)
    assert [told.error for told in world.told if told.error] == ["ValueError"]
    world.inbox.failing = set()
    world.clock.now += SCHEDULE.hold + 1
    assert (await world.reconciler().round()).tasks == [tasks[0]]


async def test_handing_over_stops_where_the_inbox_is_away(world: World) -> None:
    """An inbox that takes nothing is not asked a hundred times, and the rest goes on."""
    tasks = [await world.accepted(f"k{number}") for number in range(MAX_CONCURRENT_QUERIES + 2)]
    world.clock.now += 301
    await world.reconciler(inbox=False).round()
    world.inbox.failing = set(tasks)
    world.clock.now += 6
    report = await world.reconciler().round()
    assert report.failed == MAX_CONCURRENT_QUERIES
    world.inbox.failing = set()
    assert sorted((await world.reconciler().round()).tasks) == sorted(tasks)


async def test_run_outlives_failures_and_can_be_cancelled(world: World) -> None:
    """No failure ends it; what is overdue is told after each round."""
    task = await world.accepted("k")
    world.clock.now += 301
    failing = Failing(world.ledger)
    reconciler = Reconciler(
        world.calls,
        failing,
        schedule=Schedule(0.001),
        deliver=world.inbox.deliver,
        tell=world.told.append,
        clock=world.clock,
    )
    running = asyncio.create_task(reconciler.run())
    await until(lambda: not failing.failures and world.names()["reconcile.overdue"] > 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [told.error for told in world.told if told.error] == ["away", "RuntimeError"]
    assert list(world.inbox.taken) == [task]


class Failing(MemoryLedger):
    """Another ledger, whose first questions fail."""

    def __init__(self, inner: Ledger) -> None:
        super().__init__()
        self.inner = inner
        self.failures: list[Exception] = [LedgerUnavailable("away"), RuntimeError("SECRET")]

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        if self.failures:
            raise self.failures.pop(0)
        return await self.inner.undelivered(before, limit=limit)

    async def due(self, now: float, **more: Any) -> list[Entry]:
        return await self.inner.due(now, **more)

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        return await self.inner.finish(results, now)

    async def overdue(self, now: float) -> int:
        return await self.inner.overdue(now)


# -- lost answers ------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_a_lost_answer_is_settled(world: World) -> None:
    """F32: found in the history by model, time and input, and then asked for like any other."""
    task = await world.lost("k")
    await world.reconciler().round()
    assert world.looks == 0
    world.clock.now += 6
    report = await world.reconciler().round()
    assert (report.settled, report.rejected) == (1, 0)
    entry = await world.entry("k")
    assert (entry.state, entry.task_id, entry.guessed) == (State.ACCEPTED, task, True)
    assert world.told[-1] == ReconcileEvent("submission.settled", task, "k")
    world.clock.now += 301
    assert (await world.reconciler().round()).tasks == [task]
    assert len(world.sim.tasks) == 1


async def test_a_lost_answer_whose_task_has_ended(world: World) -> None:
    """F32: the history has the result too; no further question is asked."""
    task = await world.lost("k", context="c")
    world.clock.now += HOUR
    report = await world.reconciler().round()
    assert (report.settled, report.found, world.asked) == (1, 1, 0)
    assert task is not None
    assert (world.inbox.taken[task].key, world.inbox.taken[task].context) == ("k", "c")


@BOTH_LEDGERS
async def test_what_is_not_there_is_looked_for_several_times(world: World) -> None:
    """F32: only when no look has found it, nothing was created."""
    await world.lost("k", created=False)
    reconciler = world.reconciler()
    looked_at: list[float] = []
    for _ in range(200):
        world.clock.now += 1
        before = world.looks
        await reconciler.round()
        looked_at += [world.clock.now - NOW] * (world.looks - before)
    assert looked_at == [5, 20, 50, 110]
    entry = await world.entry("k")
    assert entry.state is State.REJECTED
    assert "nothing was created" in (entry.reason or "")
    assert world.told[-1] == ReconcileEvent("submission.rejected", key="k")


async def test_a_history_that_lags(world: World) -> None:
    """F32: a task that the history shows late is found by a later look."""
    task = await world.lost("k")
    world.wire.meddle = answering(
        "/predictions", *[httpx.Response(200, json={"code": 200, "data": {"items": []}})] * 3
    )
    reconciler = world.reconciler()
    for _ in range(120):
        world.clock.now += 1
        await reconciler.round()
    assert (await world.entry("k")).task_id == task
    assert world.names()["submission.settled"] == 1


@pytest.mark.parametrize("status", [500, 429, 401])
async def test_a_look_that_fails_is_none(world: World, status: int) -> None:
    """F32: an API that does not answer has not said that there is no task."""
    await world.lost("k", created=False)
    world.wire.meddle = answering("/predictions", *[refusing(status, retry_after="61")] * 10_000)
    reconciler = world.reconciler()
    for _ in range(20):
        world.clock.now += SCHEDULE.hold + 1
        await reconciler.round()
    entry = await world.entry("k")
    assert (entry.state, entry.asks) == (State.UNKNOWN, 0)
    assert world.looks >= 20
    world.wire.meddle = None
    for _ in range(8):
        world.clock.now += SCHEDULE.hold + 1
        await reconciler.round()
    assert (await world.entry("k")).state is State.REJECTED


async def test_a_model_that_cannot_be_looked_for_holds_up_no_other(world: World) -> None:
    """A refusal about one model leaves the others, and what runs, to be asked for."""
    running = await world.accepted("running")
    await world.lost("ill")
    healthy = await world.lost("healthy", model=PRO)
    world.clock.now += 301

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        ill = request.url.path.endswith("/predictions") and (
            json.loads(request.content)["model"] == KLING
        )
        return refusing(400) if ill else None

    world.wire.meddle = meddle
    report = await world.reconciler().round()
    assert report.failed == 1
    assert (await world.entry("healthy")).task_id == healthy
    assert running in world.inbox.taken
    assert (await world.entry("ill")).asks == 0


async def test_a_history_that_is_away_leaves_what_runs_to_be_asked_for(world: World) -> None:
    """After some silence the round looks no further, but results are another matter."""
    running = await world.accepted("running")
    for number, model in enumerate((KLING, PRO, "kwaivgi/kling-v2.1-i2v-master")):
        await world.lost(f"k{number}", model=model)
    world.clock.now += 301

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        return refusing(503) if request.url.path.endswith("/predictions") else None

    world.wire.meddle = meddle
    report = await world.reconciler().round()
    assert report.failed == 2
    assert running in world.inbox.taken


@BOTH_LEDGERS
async def test_a_killed_submitter(world: World) -> None:
    """F32: an intent whose process has died is doubted when its time is over, then looked for."""
    one = intent("k", NOW)
    await intended(world.ledger, one, NOW)
    task = await world.calls.post(one.model, one.input, None, timeout=60)
    await intended(world.ledger, intent("none", NOW, {"prompt": "x", "image": IMAGE}), NOW)
    world.clock.now += 60
    reconciler = world.reconciler()
    await reconciler.round()
    assert world.looks == 0
    world.clock.now += 6
    await reconciler.round()
    assert (await world.entry("k")).task_id == task.id
    missing = await world.entry("none")
    assert (missing.state, missing.asks) == (State.UNKNOWN, 1)
    for _ in range(3):
        world.clock.now += 100
        await reconciler.round()
    assert (await world.entry("none")).state is State.REJECTED


async def test_a_rival_on_its_way_keeps_it_open(world: World) -> None:
    """F32: the only task may belong to an equal request that is just being sent."""
    await world.lost("k")
    await intended(world.ledger, intent("rival", NOW + 500, until=NOW + 5000), NOW + 1)
    reconciler = world.reconciler()
    for _ in range(10):
        world.clock.now += 100
        await reconciler.round()
    assert (await world.entry("k")).state is State.UNKNOWN
    await world.ledger.reject("rival", "refused", world.clock())
    world.clock.now += 2 * HOUR
    await reconciler.round()
    assert (await world.entry("k")).state is State.FINISHED


@BOTH_LEDGERS
async def test_identical_lost_answers(world: World) -> None:
    """F32: of several alike each gets a task of its own; what was not created is rejected."""
    tasks = [await world.lost(f"k{number}") for number in range(3)]
    await world.lost("k3", created=False)
    reconciler = world.reconciler()
    for _ in range(4):
        world.clock.now += 100
        await reconciler.round()
    entries = [await world.entry(f"k{number}") for number in range(4)]
    assert sorted(str(entry.task_id) for entry in entries if entry.task_id) == sorted(
        map(str, tasks)
    )
    assert [entry.state for entry in entries].count(State.REJECTED) == 1


async def test_one_that_is_not_due_yet_is_found_beside_the_other(world: World) -> None:
    """F32: a look sees all lost submissions of its time, so that none takes another's task."""
    await world.lost("short")
    later = {"prompt": "waves", "image": IMAGE, "duration": 10}
    task = await world.lost("long", input=later)
    await world.ledger.postpone("long", NOW + HOUR)
    world.wire.meddle = hiding(world.sim.tasks[0].id)
    world.clock.now += 6
    await world.reconciler().round()
    assert (await world.entry("long")).task_id == task
    assert (await world.entry("short")).state is State.UNKNOWN


async def test_what_was_lost_at_another_time_is_not_looked_for(world: World) -> None:
    """Only what is due is, with what may be mistaken for it."""
    await world.lost("early")
    await world.ledger.postpone("early", NOW + 100 * HOUR)
    world.clock.now += HOUR
    await world.lost("late")
    world.clock.now += 6
    await world.reconciler().round()
    assert (await world.entry("late")).state is State.ACCEPTED
    assert (await world.entry("early")).state is State.UNKNOWN
    [look] = [each for each in world.wire.sent if b"created_after" in each.content][:1]
    assert json.loads(look.content)["created_after"] > "2026-03-01T10:00"


def hiding(task_id: str) -> Any:
    """A history without one task."""

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/predictions"):
            return None
        async with httpx.AsyncClient() as http:
            answer = await http.post(
                httpx.URL(request.url), content=request.content, headers=request.headers
            )
        body = answer.json()
        items = [item for item in body["data"]["items"] if item["id"] != task_id]
        return httpx.Response(200, json={"code": 200, "data": {"items": items}})

    return meddle


async def test_what_the_history_no_longer_reaches(world: World) -> None:
    """After 7 days nobody can say; it may be submitted again, and is told why."""
    await world.lost("k")
    world.clock.now += API_RETENTION_S + 100
    await world.reconciler().round()
    entry = await world.entry("k")
    assert entry.state is State.REJECTED
    assert "no longer reaches" in (entry.reason or "")


@BOTH_LEDGERS
async def test_a_webhook_that_comes_while_it_is_looked_for(world: World) -> None:
    """F28: what the webhook has told goes over what the history suggests."""
    task = await world.lost("k")
    assert task is not None
    right = Prediction("right", "completed", raw={"id": "right", "status": "completed"})

    async def meddle(request: httpx.Request) -> None:
        if request.url.path.endswith("/predictions"):
            await world.ledger.finish([Result(right, "k", delivered=True)], world.clock())

    world.wire.meddle = meddle
    world.clock.now += HOUR
    report = await world.reconciler().round()
    assert (report.settled, world.inbox.taken) == (0, {})
    assert (await world.entry("k")).task_id == "right"


# -- the whole history -------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_comparing_the_history(world: World) -> None:
    """F29: results that the inbox lacks are brought, those of other tools too, page by page."""
    mine = await world.accepted("k", context="c")
    unwanted = await world.accepted("quiet", webhook=False)
    there = await world.accepted("there")
    others = [
        (
            await world.calls.post(KLING, {"prompt": f"{number}", "image": IMAGE}, None, timeout=60)
        ).id
        for number in range(120)
    ]
    world.clock.now += HOUR
    await world.inbox.deliver(FoundResult(Prediction(there, "completed")))
    running = await world.posted("running")
    reconciler = world.reconciler()
    dry = await reconciler.compare_history(since=NOW - 1, known=world.inbox.known, dry_run=True)
    assert (dry.found, len(world.inbox.taken)) == (121, 1)
    report = await reconciler.compare_history(since=NOW - 1, known=world.inbox.known)
    assert sorted(report.tasks) == sorted([mine, *others])
    assert set(world.inbox.taken) == {mine, there, *others}
    assert not {unwanted, running} & set(world.inbox.taken)
    assert (world.inbox.taken[mine].key, world.inbox.taken[mine].context) == ("k", "c")
    assert world.inbox.taken[others[0]].key is None
    again = await reconciler.compare_history(since=NOW - 1, known=world.inbox.known)
    assert again.found == 0
    assert world.asked == 0


async def test_comparing_leaves_young_tasks_to_their_webhooks(world: World) -> None:
    """F30: whose submission is in another ledger, or not recorded yet, keeps its context."""
    await world.lost("k", context="c")
    world.clock.now += 299
    reconciler = world.reconciler()
    assert (await reconciler.compare_history(since=NOW - 1, known=world.inbox.known)).found == 0
    world.clock.now += 2
    assert (await reconciler.compare_history(since=NOW - 1, known=world.inbox.known)).found == 1


async def test_comparing_says_why_it_could_not(world: World) -> None:
    """A refusal is raised; a silent API as well."""
    world.wire.meddle = answering("/predictions", refusing(401))
    with pytest.raises(ApiError):
        await world.reconciler().compare_history(since=0, known=world.inbox.known)
    world.wire.meddle = away
    with pytest.raises(Unavailable):
        await world.reconciler().compare_history(since=0, known=world.inbox.known)


async def test_nothing_secret_is_told(world: World) -> None:
    """F16: neither input nor context stands in what is told or reported."""
    inputs: dict[str, JSON] = {"prompt": "SECRET", "image": IMAGE}
    await world.accepted("k", input=inputs, context="SECRET")
    world.clock.now += 301
    report = await world.reconciler().round()
    found = next(iter(world.inbox.taken.values()))
    assert "SECRET" not in f"{report!r} {world.told!r} {found!r}"


async def test_a_webhook_that_comes_at_the_last_look(world: World) -> None:
    """F28: what has been told is not rejected any more."""
    await world.lost("k", created=False)
    for _ in range(3):
        world.clock.now += 100
        await world.reconciler().round()

    async def meddle(request: httpx.Request) -> None:
        if request.url.path.endswith("/predictions"):
            told = Prediction("told", "completed")
            await world.ledger.finish([Result(told, "k", delivered=True)], world.clock())

    world.wire.meddle = meddle
    world.clock.now += 100
    report = await world.reconciler().round()
    assert report.rejected == 0
    assert (await world.entry("k")).task_id == "told"


async def test_sent_again_during_the_last_look(world: World) -> None:
    """F32: what another reconciler has rejected, and its caller sent again, is not rejected."""
    await world.lost("k", created=False)
    for _ in range(3):
        world.clock.now += 100
        await world.reconciler().round()

    async def meddle(request: httpx.Request) -> None:
        if request.url.path.endswith("/predictions") and (await world.entry("k")).tries == 1:
            await world.ledger.reject("k", "nothing was created", world.clock())
            await intended(world.ledger, intent("k", world.clock()), world.clock())

    world.wire.meddle = meddle
    world.clock.now += 100
    report = await world.reconciler().round()
    assert (report.rejected, (await world.entry("k")).state) == (0, State.INTENDED)


async def test_a_guess_that_somebody_else_made_meanwhile(world: World) -> None:
    """F32: of two who look at once, one records what both have found."""
    await world.lost("k")
    world.clock.now += 6
    [entry] = await world.ledger.due(world.clock(), hold=0)
    await world.lost("other")
    taken = world.sim.tasks[0].id

    async def meddle(request: httpx.Request) -> None:
        if request.url.path.endswith("/predictions"):
            task = Prediction(taken, "created")
            await world.ledger.accept("other", task, world.clock(), expected_at=world.clock())

    world.wire.meddle = meddle
    report = await world.reconciler().round(keys=[entry.key])
    assert report.settled == 1
    assert (await world.entry("k")).task_id == world.sim.tasks[1].id
