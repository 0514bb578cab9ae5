"""Results that no webhook brought come in through the same gateway, whatever fails meanwhile.

The API is the simulator, over HTTP, and its webhooks are dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Event, Origin, Receipt
from receiver.handlers.routing import Route
from receiver.intake import Accepted, Intake
from receiver.results.reconcile import (
    BackgroundReconciler,
    InboxGateway,
    background_reconciler,
    make_reconciler,
)
from receiver.stores.base import Plan
from receiver.stores.memory import MemoryStore
from receiver.telemetry import TelemetryEvent
from submitter.api.client import ApiClient
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Intent, Limits, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from submitter.reconcile.deliver import FoundResult, ReconcileEvent
from submitter.simulator import Simulator
from tests.support.waiting import until

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
NOW = 1_800_000_000.0


class Inbox(MemoryStore):
    """The reference, which fails when told to."""

    failure: Exception | None = None

    async def add(self, event: Event, plan: Plan) -> Receipt:
        if self.failure is not None:
            raise self.failure
        return await super().add(event, plan)


@dataclass
class Around:
    """A gateway, the store behind it, and what was told."""

    store: Inbox
    told: list[TelemetryEvent] = field(default_factory=list)
    new: list[Accepted] = field(default_factory=list)

    def __post_init__(self) -> None:
        intake = Intake({}, [Route("keep")], self.store, stored=[self.new.append])
        self.gateway = InboxGateway(intake, self.store, hooks=[self.told.append], clock=lambda: NOW)

    @property
    def names(self) -> list[str]:
        return [details.name for details in self.told]


@pytest.fixture
async def around() -> Around:
    store = Inbox()
    await store.open()
    return Around(store)


@pytest.fixture
async def ledger() -> AsyncIterator[MemoryLedger]:
    ledger = MemoryLedger()
    await ledger.open()
    yield ledger
    await ledger.close()


def prediction(status: str = "completed", task: str = "t1") -> Prediction:
    found = Prediction.parse({"id": task, "status": status, "model": MODEL, "outputs": []})
    assert found is not None
    return found


async def submit(calls: ApiClient, sim: Simulator, ledger: MemoryLedger) -> str:
    """A task in the ledger that is overdue at once; returns its id."""
    input: dict[str, Any] = {"prompt": "waves", "image": sim.first_frame}
    now = time.time()
    await ledger.intend(
        Intent("k", MODEL, input, digest="d", until=now + 60, context={"job": 7}), Limits(), now
    )
    task = await calls.post(MODEL, input, None, timeout=20.0)
    await ledger.accept("k", task, now, expected_at=now)
    return task.id


async def test_what_is_found_goes_the_way_of_every_event(around: Around) -> None:
    """F29, F30: stored with its context for the handlers, once, and whoever observes is told."""
    found = FoundResult(prediction(), {"job": 7}, "k")

    assert await around.gateway.deliver(found)
    assert not await around.gateway.deliver(found)

    (accepted,) = around.new
    assert (accepted.event.origin, accepted.event.context) == (Origin.RECONCILE, {"job": 7})
    assert (accepted.event.received_at, accepted.submission) == (NOW, "k")
    assert [each.handler for each in await around.store.dispatches(accepted.event.id)] == ["keep"]
    assert around.told == [
        TelemetryEvent(
            "reconcile.stored",
            source="wavespeed",
            event_id="wavespeed:t1:completed",
            type="prediction.completed",
        )
    ]


async def test_the_inbox_says_what_it_has(around: Around) -> None:
    """F31: of two ends the first received; of a purged one, how it ended."""
    for status, task, at in (("completed", "t1", 2.0), ("failed", "t1", 1.0), ("timeout", "t2", 1)):
        accepted = Event(
            id=f"wavespeed:{task}:{status}",
            source="wavespeed",
            type=f"prediction.{status}",
            subject=task,
            body=b"" if task == "t2" else b'{"id": "t1", "status": "%b"}' % status.encode(),
            received_at=at,
        )
        await around.store.add(accepted, {})

    known = await around.gateway.known(["t1", "t2", "t3"])

    assert {task: found.status for task, found in known.items()} == {
        "t1": "failed",
        "t2": "timeout",
    }
    assert known["t2"].raw == {"id": "t2", "status": "timeout"}


async def test_an_inbox_that_is_away_is_no_end_of_reconciling(around: Around) -> None:
    """F20: the reconciler hears of it in its own words."""
    around.store.failure = StoreUnavailable("disk full")
    with pytest.raises(LedgerUnavailable, match="disk full"):
        await around.gateway.deliver(FoundResult(prediction()))

    await around.store.close()
    with pytest.raises(LedgerUnavailable):
        await around.gateway.known(["t1"])

    assert around.names == []


async def test_what_a_reconciler_does_is_told(around: Around) -> None:
    """But for what is overdue, which is asked for at each scrape."""
    around.gateway.told(ReconcileEvent("reconcile.asked", "t1", "k"))
    around.gateway.told(ReconcileEvent("reconcile.overdue", count=3))
    around.gateway.told(ReconcileEvent("reconcile.failed", error="away"))

    assert around.told == [
        TelemetryEvent("reconcile.asked", task_id="t1", submission="k"),
        TelemetryEvent("reconcile.failed", error="away"),
    ]


async def test_an_overdue_task_is_asked_for_and_let_in(
    around: Around, ledger: MemoryLedger
) -> None:
    """F29: the webhook never came; the ledger and the inbox have the result all the same."""
    async with Simulator(speed=1000.0) as sim, ApiClient("k", sim.url) as calls:
        task_id = await submit(calls, sim, ledger)
        await asyncio.sleep(0)
        once = make_reconciler(calls, ledger, around.gateway, 0.5)
        async with asyncio.timeout(20):
            while not around.new:
                await once.round()

    event = around.new[0].event
    assert (event.id, event.context) == (f"wavespeed:{task_id}:completed", {"job": 7})
    entry = (await ledger.find(["k"]))["k"]
    assert (entry.state, entry.delivered) == (State.FINISHED, True)


async def test_what_the_inbox_has_is_not_asked_for(around: Around, ledger: MemoryLedger) -> None:
    """F1: a process that died between the inbox and the ledger costs no question."""
    async with Simulator() as sim, ApiClient("k", sim.url) as calls:
        task_id = await submit(calls, sim, ledger)
        await around.gateway.deliver(FoundResult(prediction(task=task_id)))

        report = await make_reconciler(calls, ledger, around.gateway, 300.0).round()

    assert (report.asked, (await ledger.find(["k"]))["k"].state) == (0, State.FINISHED)


async def test_it_runs_beside_the_requests_until_it_is_stopped(
    around: Around, ledger: MemoryLedger
) -> None:
    """F29: as `serve` runs it."""
    async with Simulator(speed=1000.0) as sim, ApiClient("k", sim.url) as calls:
        await submit(calls, sim, ledger)
        service = background_reconciler(
            lambda: ApiClient("k", sim.url), ledger, around.gateway, 0.5
        )
        await service.start()
        await until(lambda: bool(around.new))
        await service.stop()
        asked = sim.calls["result"]
        await asyncio.sleep(0.05)

        assert sim.calls["result"] == asked
        await service.stop()


async def test_no_failure_ends_it() -> None:
    """F20: it begins again, and says why; the text of a fault of ours is not told (F16)."""
    told: list[TelemetryEvent] = []
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        raise LedgerUnavailable("locked") if runs % 2 else RuntimeError("a prompt")

    service = BackgroundReconciler(run, hook=told.append, restart_delay=0.001)
    await service.start()
    await until(lambda: runs > 2)
    await service.stop()

    assert [details.error for details in told[:2]] == ["LedgerUnavailable: locked", "RuntimeError"]
    assert {details.name for details in told} == {"reconcile.failed"}


async def test_an_address_that_cannot_be_is_told(around: Around, ledger: MemoryLedger) -> None:
    """The receiver receives all the same."""
    service = background_reconciler(
        lambda: ApiClient("k", "no address"), ledger, around.gateway, 0.5
    )
    await service.start()
    await until(lambda: bool(around.told))
    await service.stop()

    assert "WAVESPEED_BASE_URL" in (around.told[0].error or "")
