"""After an event is stored: who waits wakes up, the ledger learns, contradictions are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Event, Receipt
from receiver.intake import Accepted
from receiver.results.ledger_sync import LedgerSync
from receiver.results.long_poll import ResultWaiters
from receiver.stores.memory import MemoryStore
from receiver.telemetry import TelemetryEvent
from receiver.telemetry.metrics import Metrics
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, Intent, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from tests.support.events import event

NOW = 1_800_000_000.0
SOON = (0.01,) * 200
"""Many short waits: a test waits for what happens, not for time."""


class Ledger(MemoryLedger):
    """The reference, which fails when told to, and counts."""

    failure: Exception | None = None
    asked = 0

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        self.asked += 1
        return await super().find_tasks(task_ids)

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return await super().finish(results, now)


class Inbox(MemoryStore):
    """The reference, which fails when told to."""

    failure: Exception | None = None

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        if self.failure is not None:
            raise self.failure
        return await super().find(ids)


class Waiting(ResultWaiters):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.woken: list[Event] = []
        self.opened = False

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        self.opened = False

    def stored(self, event: Event) -> None:
        self.woken.append(event)


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    ledger = Ledger()
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
async def store() -> Inbox:
    store = Inbox()
    await store.open()
    return store


@pytest.fixture
def told() -> list[TelemetryEvent]:
    return []


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def follower(
    store: Inbox, ledger: Ledger, told: list[TelemetryEvent], metrics: Metrics
) -> AsyncIterator[LedgerSync]:
    follower = LedgerSync(
        store, ledger, hooks=[told.append, metrics], clock=lambda: NOW + 7, retry_delays=SOON
    )
    yield follower
    await follower.stop()


def accepted(event: Event, key: str | None = None) -> Accepted:
    return Accepted(event, Receipt(event.id, duplicate=False), key)


async def intend(ledger: Ledger, key: str) -> None:
    intent = Intent(key, "m", {}, digest=key, until=NOW + 60)
    await ledger.intend(intent, Limits(), NOW)


async def accept(ledger: Ledger, key: str, task: str) -> None:
    prediction = Prediction.parse({"id": task, "status": "created"})
    assert prediction is not None
    await ledger.accept(key, prediction, NOW, expected_at=NOW + 300)


async def finished(ledger: Ledger, key: str) -> Entry:
    async with asyncio.timeout(20):
        while True:
            entry = (await ledger.find([key]))[key]
            if entry.state is State.FINISHED:
                return entry
            await asyncio.sleep(0.005)


async def until(told: list[TelemetryEvent], name: str, number: int = 1) -> list[TelemetryEvent]:
    async with asyncio.timeout(20):
        while True:
            found = [details for details in told if details.name == name]
            if len(found) >= number:
                return found
            await asyncio.sleep(0.005)


async def test_the_key_in_the_token_finds_the_submission_before_its_answer(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """F28, F32: also where the answer to the submit never came."""
    await intend(ledger, "k")
    body = b'{"id": "t1", "status": "completed", "outputs": ["https://cdn.example/1"]}'

    follower.stored(accepted(event("t1", body=body), "k"))
    entry = await finished(ledger, "k")

    assert (entry.task_id, entry.status, entry.delivered) == ("t1", "completed", True)
    assert entry.finished_at == NOW + 7
    assert entry.prediction is not None
    assert entry.prediction.outputs == ("https://cdn.example/1",)


async def test_a_task_without_a_token_is_found_by_its_id(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """A webhook URL of one's own brings no key."""
    await intend(ledger, "k")
    await accept(ledger, "k", "t1")

    follower.stored(accepted(event("t1", "failed")))

    assert (await finished(ledger, "k")).status == "failed"


async def test_a_webhook_without_a_token_waits_for_the_answer_to_its_submit(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """F28: it is tried again while a submission is on its way."""
    await intend(ledger, "k")
    follower.stored(accepted(event("t1")))
    async with asyncio.timeout(20):
        while ledger.asked < 3:
            await asyncio.sleep(0.005)

    await accept(ledger, "k", "t1")

    assert (await finished(ledger, "k")).delivered


async def test_what_nobody_submitted_here_is_looked_for_once(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """A receiver whose tasks are submitted elsewhere spends nothing on them."""
    follower.stored(accepted(event("t1")))
    follower.stored(accepted(event("t2")))
    await follower.stop()

    assert ledger.asked == 1


async def test_looking_ends_after_the_last_wait(store: Inbox, ledger: Ledger) -> None:
    """A reconcile finds it in the inbox anyway."""
    await intend(ledger, "another")
    follower = LedgerSync(store, ledger, retry_delays=(0.001, 0.001))
    follower.stored(accepted(event("t1")))
    async with asyncio.timeout(20):
        while ledger.asked < 3:
            await asyncio.sleep(0.005)
    await follower.stop()

    assert ledger.asked == 3


@pytest.mark.parametrize(
    "other",
    [
        event("t1", "processing"),
        event("t1", source="other"),
        replace(event("t1"), type="parked", subject=None),
    ],
    ids=["not terminal", "another source", "parked"],
)
async def test_what_ends_no_task_is_passed_over(store: Inbox, ledger: Ledger, other: Event) -> None:
    """Nobody is woken and nothing is asked."""
    waiting = Waiting()
    follower = LedgerSync(store, ledger, waiting)

    follower.stored(accepted(other, "k"))
    await follower.stop()

    assert (waiting.woken, ledger.asked) == ([], 0)


async def test_the_waiting_are_woken_at_once(store: Inbox) -> None:
    """Before the event loop turns again; without a ledger too."""
    waiting = Waiting()
    follower = LedgerSync(store, None, waiting)

    follower.stored(accepted(event("t1")))

    assert waiting.woken == [event("t1")]
    await follower.stop()


async def test_others_may_wait_from_start_to_stop(store: Inbox) -> None:
    """F40: a stop ends their waits."""
    waiting = Waiting()
    follower = LedgerSync(store, None, waiting)

    await follower.start()
    opened = waiting.opened
    await follower.stop()

    assert (opened, waiting.opened) == (True, False)


async def test_a_contradiction_is_told_and_counted_once(
    store: Inbox, ledger: Ledger, follower: LedgerSync, told: list[TelemetryEvent], metrics: Metrics
) -> None:
    """F31: both events are kept, the ledger keeps the first, and a person hears of it."""
    await intend(ledger, "k")
    first, second = event("t1", "completed"), event("t1", "failed")
    for each in (first, second):
        await store.add(each, {})
        follower.stored(accepted(each, "k"))
    (details,) = await until(told, "prediction.contradicted")
    await follower.stop()

    assert {details.type, details.other} == {first.type, second.type}
    assert (details.task_id, details.event_id) in [("t1", first.id), ("t1", second.id)]
    assert [each.name for each in told] == ["prediction.contradicted"]
    assert b"wavehook_contradictions_total 1.0" in metrics.render(None, NOW)
    assert (await ledger.find(["k"]))["k"].status == "completed"
    assert len(await store.events()) == 2


async def test_a_ledger_that_is_away_is_told_later(
    ledger: Ledger, follower: LedgerSync, told: list[TelemetryEvent], metrics: Metrics
) -> None:
    """F20: a failure is told and counted, and nothing is lost over it."""
    await intend(ledger, "k")
    ledger.failure = LedgerUnavailable("locked")
    follower.stored(accepted(event("t1"), "k"))
    failed = await until(told, "follower.failed", 2)
    ledger.failure = None

    assert (await finished(ledger, "k")).delivered
    assert failed[0].error == "LedgerUnavailable: locked"
    assert b"wavehook_follower_errors_total 0.0" not in metrics.render(None, NOW)


async def test_a_store_that_is_away_is_asked_later(
    store: Inbox, ledger: Ledger, follower: LedgerSync, told: list[TelemetryEvent]
) -> None:
    """F20: as with the ledger."""
    await intend(ledger, "k")
    store.failure = StoreUnavailable("closed")
    follower.stored(accepted(event("t1"), "k"))
    await until(told, "follower.failed")
    store.failure = None

    assert (await finished(ledger, "k")).delivered


async def test_a_fault_of_ours_ends_neither_the_others_nor_the_process(
    ledger: Ledger, follower: LedgerSync, told: list[TelemetryEvent]
) -> None:
    """F16: its class is told, and never its text."""
    for key in ("k", "l"):
        await intend(ledger, key)
    ledger.failure = RuntimeError("a prompt")
    follower.stored(accepted(event("t1"), "k"))
    (failed,) = await until(told, "follower.failed")
    ledger.failure = None
    follower.stored(accepted(event("t2"), "l"))

    assert (await finished(ledger, "l")).task_id == "t2"
    assert (failed.error, failed.number) == ("RuntimeError", 1)


async def test_a_stop_finishes_what_is_known_of(store: Inbox, ledger: Ledger) -> None:
    """F40: also what had been put off is tried once more; afterwards it may go on."""
    follower = LedgerSync(store, ledger, retry_delays=(60.0,))
    await intend(ledger, "k")
    await intend(ledger, "l")
    follower.stored(accepted(event("t1")))
    async with asyncio.timeout(20):
        while not ledger.asked:
            await asyncio.sleep(0.005)
    await accept(ledger, "k", "t1")
    follower.stored(accepted(event("t2"), "l"))

    await follower.stop()

    assert {entry.state for entry in (await ledger.find(["k", "l"])).values()} == {State.FINISHED}
    await intend(ledger, "m")
    follower.stored(accepted(event("t3"), "m"))
    await follower.stop()
    assert (await ledger.find(["m"]))["m"].state is State.FINISHED


async def test_what_a_stop_leaves_behind_is_told(
    store: Inbox, ledger: Ledger, told: list[TelemetryEvent]
) -> None:
    """A stop takes no longer than it may; a reconcile makes it good."""
    ledger.failure = LedgerUnavailable("locked")
    follower = LedgerSync(store, ledger, hooks=[told.append], retry_delays=(60.0,))
    for number in range(3):
        follower.stored(accepted(event(f"t{number}"), "k"))
    await until(told, "follower.failed")
    follower.stored(accepted(event("t3"), "k"))

    await follower.stop(0.01)

    assert told[-1].number == 4
    assert "reconcile" in (told[-1].error or "")


async def test_what_is_too_much_is_told(
    store: Inbox, ledger: Ledger, told: list[TelemetryEvent]
) -> None:
    """F26: memory stays bounded, and what is passed over is a line in the log."""
    follower = LedgerSync(store, ledger, hooks=[told.append], retry_delays=(60.0,), max_queued=2)
    await intend(ledger, "another")
    for number in range(5):
        follower.stored(accepted(event(f"t{number}")))
    async with asyncio.timeout(20):
        while not ledger.asked:
            await asyncio.sleep(0.005)
    follower.stored(accepted(event("t5")))
    async with asyncio.timeout(20):
        while ledger.asked < 2:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0)
    await follower.stop()

    assert [details.number for details in told] == [4]


async def test_old_pairs_of_contradictions_are_forgotten(
    store: Inbox, told: list[TelemetryEvent]
) -> None:
    """What is remembered of them is bounded."""
    follower = LedgerSync(store, None, hooks=[told.append], max_queued=1)
    for task in ("t1", "t2", "t1"):
        for status in ("completed", "failed"):
            await store.add(event(task, status), {})
        follower.stored(accepted(event(task, "failed")))
        await follower.stop()

    assert [details.task_id for details in told] == ["t1", "t2", "t1"]


def test_a_request_with_an_event_loop_of_its_own_is_followed(told: list[TelemetryEvent]) -> None:
    """F41: on some platforms each request has one, and the one before is dead."""
    store, waiting = Inbox(), Waiting()
    follower = LedgerSync(store, None, waiting, hooks=[told.append])

    async def one(status: str, *, stop: bool) -> None:
        await store.open()
        await store.add(event("t1", status), {})
        follower.stored(accepted(event("t1", status)))
        if stop:
            await follower.stop()

    asyncio.run(one("completed", stop=False))
    asyncio.run(one("failed", stop=True))

    assert len(waiting.woken) == 2
    assert [details.name for details in told] == ["prediction.contradicted"]


async def test_a_reply_can_wait_for_what_follows(ledger: Ledger, follower: LedgerSync) -> None:
    """F41: after it the process may be frozen, and the ledger knows already."""
    await intend(ledger, "k")
    await accept(ledger, "k", "t1")
    await follower.flush()
    for number in range(3):
        # Another of a run that goes on, and what nobody submitted.
        follower.stored(accepted(event(f"t{number}")))
        await follower.flush()

    assert (await ledger.find(["k"]))["k"].state is State.FINISHED
    assert not follower._queue


async def test_a_reply_does_not_wait_for_a_task_that_is_not_known_yet(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """F28, F41: it may take as long as a submit takes."""
    await intend(ledger, "k")
    follower.stored(accepted(event("t1")))

    async with asyncio.timeout(20):
        await follower.flush(3600)
    assert len(follower._later) == 1

    await accept(ledger, "k", "t1")
    assert (await finished(ledger, "k")).delivered


async def test_a_reply_waits_for_a_ledger_that_is_away_no_longer_than_it_may(
    ledger: Ledger, follower: LedgerSync
) -> None:
    """F20, F41: the sender has its answer; a later round tells the ledger."""
    await intend(ledger, "k")
    ledger.failure = LedgerUnavailable("away")
    follower.stored(accepted(event("t1"), "k"))

    await follower.flush(0.01)

    assert follower._batch
    ledger.failure = None
    assert (await finished(ledger, "k")).delivered
