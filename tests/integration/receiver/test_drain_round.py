"""One round of everything, as a schedule has it done.

The API is the simulator, over HTTP, and its webhooks are dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import Retry, SettingsError, StoreUnavailable
from receiver.event import DispatchState, Event
from receiver.handlers.base import Context, Installed
from receiver.handlers.routing import Route
from receiver.intake import Intake
from receiver.results.drain_round import DrainRound
from receiver.results.reconcile import InboxGateway
from receiver.scheduled import drain
from receiver.stores.memory import MemoryStore
from receiver.stores.sqlite import SQLiteStore
from receiver.telemetry import TelemetryEvent
from submitter.api.client import ApiClient
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, Intent, Limits, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from submitter.simulator import Faults, Simulator

MODEL = "kwaivgi/kling-v2.1-i2v-standard"


class Ledger(MemoryLedger):
    """The reference, which fails when told to."""

    failure: Exception | None = None

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        if self.failure is not None:
            raise self.failure
        return await super().open_entries(limit=limit)


class Round:
    """Parts on the reference, with a handler that does what it is told."""

    def __init__(self, connect: Any = None) -> None:
        self.store = MemoryStore()
        self.ledger = Ledger()
        self.told: list[TelemetryEvent] = []
        self.handled: list[str | None] = []
        self.act: Any = None
        installed = Installed(Route("keep"), self.keep)
        dispatcher = Dispatcher(self.store, [installed], owner="o", hooks=[self.told.append])
        self.gateway = InboxGateway(
            Intake({}, [installed.route], self.store), self.store, hooks=[self.told.append]
        )
        self.draining = DrainRound(
            self.store,
            dispatcher,
            ["keep"],
            ledger=self.ledger,
            gateway=self.gateway,
            connect=connect,
            overdue=300.0,
        )

    async def keep(self, event: Event, context: Context) -> None:
        self.handled.append(event.subject)
        if self.act is not None:
            await self.act()

    async def store_event(self, task: str) -> None:
        event = Event(
            id=f"wavespeed:{task}:completed",
            source="wavespeed",
            type="prediction.completed",
            subject=task,
            body=b'{"id": "%b", "status": "completed"}' % task.encode(),
            received_at=time.time(),
        )
        await self.store.add(event, {"keep": ()})

    async def submitted(self, key: str, task: str, *, overdue: bool = False) -> None:
        now = time.time()
        await self.ledger.intend(Intent(key, MODEL, {}, digest=key, until=now + 60), Limits(), now)
        found = Prediction.parse({"id": task, "status": "created"})
        assert found is not None
        await self.ledger.accept(key, found, now, expected_at=now if overdue else now + 300)

    @property
    def failures(self) -> list[str | None]:
        return [each.error for each in self.told if each.name == "reconcile.failed"]


@pytest.fixture
async def round_() -> Round:
    made = Round()
    await made.store.open()
    await made.ledger.open()
    return made


async def test_what_is_due_is_run(round_: Round) -> None:
    """All of it, and it is told that nothing is left."""
    for number in range(3):
        await round_.store_event(f"t{number}")

    assert await round_.draining.run(None, 5.0) == {"ran": 3, "reconciled": 0, "more": False}
    assert sorted(map(str, round_.handled)) == ["t0", "t1", "t2"]


async def test_what_is_left_is_told(round_: Round) -> None:
    """Beyond the limit there is more."""
    for number in range(3):
        await round_.store_event(f"t{number}")

    assert await round_.draining.run(2, 5.0) == {"ran": 2, "reconciled": 0, "more": True}
    assert await round_.draining.run(2, 5.0) == {"ran": 1, "reconciled": 0, "more": False}


async def test_what_is_due_later_is_no_more(round_: Round) -> None:
    """A schedule need not come again at once for a retry that has its time."""

    async def fail() -> None:
        raise Retry("later", after=3600.0)

    round_.act = fail
    await round_.store_event("t1")

    assert await round_.draining.run(None, 5.0) == {"ran": 1, "reconciled": 0, "more": False}


async def test_a_handler_that_takes_too_long_is_given_back(round_: Round) -> None:
    """F41: at the deadline its lease is free for the next round, and its try does not count."""
    round_.act = asyncio.Event().wait
    await round_.store_event("t1")

    assert await round_.draining.run(None, 1.0) == {"ran": 1, "reconciled": 0, "more": True}
    (dispatch,) = await round_.store.dispatches("wavespeed:t1:completed")
    assert dispatch.state is DispatchState.PENDING
    round_.act = None
    assert (await round_.draining.run(None, 5.0))["ran"] == 1


async def test_two_rounds_at_once_double_nothing(round_: Round) -> None:
    """F30: each dispatch is run by one of them."""
    for number in range(40):
        await round_.store_event(f"t{number}")

    done = await asyncio.gather(*(round_.draining.run(None, 5.0) for _ in range(2)))

    assert sum(each["ran"] for each in done) == 40
    assert len(round_.handled) == len(set(round_.handled)) == 40


async def test_a_ledger_that_missed_a_result_catches_up(round_: Round) -> None:
    """F41: the inbox has it; the process that stored it was frozen before it told the ledger."""
    await round_.submitted("k", "t1")
    await round_.submitted("other", "t2")
    await round_.store_event("t1")

    assert (await round_.draining.run(None, 5.0))["reconciled"] == 1

    found = await round_.ledger.find(["k", "other"])
    assert (found["k"].state, found["k"].status) == (State.FINISHED, "completed")
    assert found["k"].delivered
    assert found["other"].state is State.ACCEPTED
    assert (await round_.draining.run(None, 5.0))["reconciled"] == 0


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (LedgerUnavailable("away"), "LedgerUnavailable: away"),
        (ValueError("a prompt"), "ValueError"),
    ],
)
async def test_handlers_run_although_the_ledger_does_not_answer(
    round_: Round, failure: Exception, text: str
) -> None:
    """F20, F16: one half's failure is told, without data, and is not the other's."""
    round_.ledger.failure = failure
    await round_.store_event("t1")

    assert (await round_.draining.run(None, 5.0))["ran"] == 1
    assert round_.failures == [text]


async def test_a_store_that_is_away_is_the_callers_to_know(round_: Round) -> None:
    """F20: a schedule's log shows it."""
    await round_.store.close()

    with pytest.raises(StoreUnavailable):
        await round_.draining.run(None, 5.0)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(faults=Faults.parse("drop=1", 1), speed=1000.0) as sim:
        yield sim


async def test_what_is_overdue_is_asked_for(sim: Simulator) -> None:
    """F29, F41: no process goes on to reconcile by itself; what it brings is handled at once."""
    round_ = Round(lambda: ApiClient("k", sim.url))
    await round_.store.open()
    await round_.ledger.open()
    async with ApiClient("k", sim.url) as calls:
        input = {"prompt": "waves", "image": sim.first_frame}
        task = await calls.post(MODEL, input, None, timeout=20.0)
    await round_.submitted("k", task.id, overdue=True)

    async with asyncio.timeout(30):
        while not (done := await round_.draining.run(None, 10.0))["reconciled"]:
            entry = (await round_.ledger.find(["k"]))["k"]
            await round_.ledger.postpone("k", min(time.time(), entry.ask_at or 0.0))

    assert done == {"ran": 1, "reconciled": 1, "more": False}
    assert round_.handled == [task.id]
    assert (await round_.ledger.find(["k"]))["k"].state is State.FINISHED


async def test_an_api_that_is_slow_leaves_the_handlers_their_time() -> None:
    """F41: questions have half of the time at most."""
    ended = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        round_ = Round(lambda: ApiClient("k", f"http://127.0.0.1:{port}"))
        await round_.store.open()
        await round_.ledger.open()
        await round_.submitted("k", "t2", overdue=True)
        await round_.store_event("t1")
        done = await round_.draining.run(None, 2.0)
        ended.set()

    assert done == {"ran": 1, "reconciled": 0, "more": False}
    assert round_.failures == ["TimeoutError"]


def test_a_schedule_that_calls_a_function(tmp_path: Path) -> None:
    """F41: all is opened and closed within the call, on an event loop of its own, each time."""
    text = f'[handlers.keep]\nuse = "log"\nto = "{tmp_path}/handled.jsonl"\n'
    (tmp_path / "wavehook.toml").write_text(text)
    environ = {"WAVEHOOK_DATABASE": f"sqlite:///{tmp_path}/inbox.db"}
    assert drain(environ=environ, cwd=tmp_path) == {"ran": 0, "reconciled": 0, "more": False}

    async def put() -> None:
        store = SQLiteStore(tmp_path / "inbox.db")
        await store.open()
        event = Event("wavespeed:t1:completed", "wavespeed", "prediction.completed", "t1")
        await store.add(event, {"keep": ()})
        await store.close()

    asyncio.run(put())
    assert drain(5.0, environ=environ, cwd=tmp_path)["ran"] == 1
    assert drain(5.0, environ=environ, cwd=tmp_path)["ran"] == 0
    assert len((tmp_path / "handled.jsonl").read_text().splitlines()) == 1


def test_a_schedule_with_settings_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F15: the platform's log names every fault."""
    structlog.reset_defaults()
    environ = {"WAVEHOOK_PORT": "eighty", "K_SERVICE": "x"}

    with pytest.raises(SettingsError) as caught:
        drain(environ=environ, cwd=tmp_path)

    assert [fault.partition(" ")[0] for fault in caught.value.faults] == [
        "WAVEHOOK_PORT",
        "WAVEHOOK_DATABASE",
    ]
    assert structlog.is_configured()
