"""The dispatcher over the memory store: what runs, when, how often, and who learns of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.dispatch.slots import ConcurrencySlots
from receiver.errors import GiveUp, Retry, StoreUnavailable
from receiver.event import Dispatch, DispatchState, Event, Outcome
from receiver.handlers.base import Context, Handler, Installed
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route, match
from receiver.stores.memory import MemoryStore
from receiver.telemetry import TelemetryEvent
from tests.support.clocks import Clock
from tests.support.waiting import until


class Bench:
    """A store, a clock, and dispatchers over them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock(1000.0)
        self.told: list[TelemetryEvent] = []

    def dispatcher(self, *handlers: Installed, owner: str = "one", **more: Any) -> Dispatcher:
        return Dispatcher(
            self.store,
            handlers,
            owner=owner,
            hooks=[self.told.append],
            clock=self.clock,
            random=lambda: 1.0,
            **more,
        )

    async def add(self, subject: str, handlers: Sequence[Installed]) -> str:
        event = Event(
            f"s:{subject}:completed", "s", "prediction.completed", received_at=self.clock.now
        )
        await self.store.add(event, match(event, [each.route for each in handlers]))
        return event.id

    async def state(self, event_id: str, handler: str = "h") -> Dispatch:
        return {each.handler: each for each in await self.store.dispatches(event_id)}[handler]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.store.open()
    yield bench
    await bench.store.close()


def handler(run: Handler, name: str = "h", after: tuple[str, ...] = (), **rules: Any) -> Installed:
    return Installed(Route(name, after=after), run, **rules)


def scripted(*steps: BaseException | object) -> tuple[Handler, list[Context]]:
    """A handler that does one step a call: raises an exception, or returns a value."""
    seen: list[Context] = []
    left = list(steps)

    async def run(event: Event, context: Context) -> object:
        seen.append(context)
        step = left.pop(0) if left else None
        if isinstance(step, BaseException):
            raise step
        return step

    return run, seen


async def test_a_return_is_done_and_its_json_is_kept(bench: Bench) -> None:
    """What a handler returns is the dispatch's result."""
    run, seen = scripted({"url": "https://x"})
    installed = handler(run)
    id = await bench.add("t", [installed])
    assert await bench.dispatcher(installed).drain() == 1
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.result) == (DispatchState.DONE, {"url": "https://x"})
    assert (seen[0].key, seen[0].attempt, seen[0].deadline) == (f"{id}/h", 1, 1030.0)


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), "x" * 70_000])
async def test_a_result_that_is_no_small_json_is_not_kept(bench: Bench, value: object) -> None:
    """A handler may return anything; the dispatch is done all the same."""
    installed = handler(scripted(value)[0])
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed).drain()
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.result) == (DispatchState.DONE, None)


async def test_a_failing_handler_backs_off_then_dies_and_a_person_revives_it(bench: Bench) -> None:
    """F23: backoff, dead after the limit, visible, retryable by hand."""
    run, seen = scripted(ValueError("a"), ValueError("b"), ValueError("c"))
    installed = handler(run, retry=Backoff(attempts=3, base=10, cap=15))
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed)
    due = []
    dispatch = await bench.state(id)
    for _ in range(3):
        assert await dispatcher.drain() == 1
        assert await dispatcher.drain() == 0
        dispatch = await bench.state(id)
        due.append(dispatch.due_at - bench.clock.now)
        bench.clock.now += 20
    assert due[:2] == pytest.approx([10, 15], abs=0.1)
    assert (dispatch.state, dispatch.error) == (DispatchState.DEAD, "ValueError: c")
    assert [each.outcome for each in await bench.store.attempts(id)] == ["retry", "retry", "dead"]
    assert [each.outcome for each in bench.told] == ["retry", "retry", "dead"]
    assert await bench.store.retry(id, "h", bench.clock.now)
    assert await dispatcher.drain() == 1
    assert (await bench.state(id)).state is DispatchState.DONE
    assert {context.key for context in seen} == {f"{id}/h"}
    assert [context.attempt for context in seen] == [1, 2, 3, 4]


async def test_one_bad_handler_leaves_the_others_alone(bench: Bench) -> None:
    """F23: while one fails and one hangs, the third handles everything."""
    stuck = asyncio.Event()

    async def hang(event: Event, context: Context) -> None:
        await stuck.wait()

    async def fail(event: Event, context: Context) -> None:
        raise ValueError

    good: list[str] = []

    async def work(event: Event, context: Context) -> None:
        good.append(event.id)

    handlers = [
        handler(hang, "hang", concurrency=2),
        handler(fail, "fail"),
        handler(work, "work", concurrency=1),
    ]
    for number in range(20):
        await bench.add(str(number), handlers)
    dispatcher = bench.dispatcher(*handlers)
    await dispatcher.start()
    await until(lambda: len(good) == 20)
    await dispatcher.stop(0)
    assert len(set(good)) == 20


async def test_give_up_is_dead_at_once(bench: Bench) -> None:
    """A handler that says that trying again cannot help is believed."""
    installed = handler(scripted(GiveUp("no such channel"))[0])
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed).drain()
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.error) == (DispatchState.DEAD, "no such channel")


async def test_retry_after_is_honoured(bench: Bench) -> None:
    """F27: not before the time that the handler asked for; jitter comes on top."""
    installed = handler(scripted(Retry("busy", after=100))[0], retry=Backoff(base=2))
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed)
    await dispatcher.drain()
    assert (await bench.state(id)).due_at == pytest.approx(1102, abs=0.1)
    bench.clock.now += 99
    assert await dispatcher.drain() == 0
    bench.clock.now += 4
    assert await dispatcher.drain() == 1


async def test_a_pause_holds_the_whole_handler_and_nobody_else(bench: Bench) -> None:
    """F27: a downstream that answers 429 is left alone by all events, other handlers go on."""
    run, seen = scripted(Retry("429", after=60, pause=True))
    other, others = scripted()
    handlers = [handler(run, concurrency=1), handler(other, "other")]
    dispatcher = bench.dispatcher(*handlers)
    await bench.add("a", handlers)
    await dispatcher.drain()
    await bench.add("b", handlers)
    await dispatcher.drain()
    assert (len(seen), len(others)) == (1, 2)
    assert "handler.paused" in [each.name for each in bench.told]
    bench.clock.now += 70
    await dispatcher.drain()
    assert len(seen) == 3


async def test_a_handler_that_hangs_is_timed_out(bench: Bench) -> None:
    """F24: the time limit ends it, and the policy decides what comes next."""

    async def hang(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    installed = handler(hang, timeout=0.02)
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed).drain()
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.error) == (
        DispatchState.PENDING,
        "TimedOut: timed out after 0.02 s",
    )


async def test_a_handler_that_ignores_its_cancellation_is_left_behind(bench: Bench) -> None:
    """F24: a run that will not end holds up neither its place nor the settle."""
    release = asyncio.Event()

    async def stubborn(event: Event, context: Context) -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    installed = handler(stubborn, timeout=0.02)
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed, cancel_grace=0.02).drain()
    release.set()
    await asyncio.sleep(0)
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.result) == (DispatchState.PENDING, None)


async def test_the_late_result_of_a_lost_lease_changes_nothing(bench: Bench) -> None:
    """F24: another took over; what the first run brings is told as lost and written nowhere."""
    go = asyncio.Event()

    async def slow(event: Event, context: Context) -> str:
        await go.wait()
        return "first"

    first = handler(slow)
    id = await bench.add("t", [first])
    one = bench.dispatcher(first)
    await one.start()
    await until(first_is_leased)
    bench.clock.now += 61
    second = handler(scripted("second")[0])
    assert await bench.dispatcher(second, owner="two").drain() == 1
    go.set()
    await until(lambda: any(each.name == "dispatch.lost" for each in bench.told))
    await one.stop(1)
    assert (await bench.state(id)).result == "second"
    assert [each.outcome for each in await bench.store.attempts(id)] == ["lost", "done"]


def first_is_leased() -> bool:
    """Some task of a handler is waiting."""
    return any("_guarded" in str(task.get_coro()) for task in asyncio.all_tasks())


async def test_leases_are_kept_alive_while_a_handler_runs(bench: Bench) -> None:
    """A run longer than its lease keeps it: the heartbeat renews what still runs."""
    go = asyncio.Event()

    async def slow(event: Event, context: Context) -> None:
        await go.wait()

    installed = handler(slow)
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed, lease=0.03)
    await dispatcher.start()
    await until(first_is_leased)
    bench.clock.now += 10
    async with asyncio.timeout(5):
        while (await bench.state(id)).due_at < 1010:
            await asyncio.sleep(0.005)
    go.set()
    await dispatcher.stop(1)
    assert (await bench.state(id)).state is DispatchState.DONE


async def test_a_run_whose_lease_was_lost_is_cancelled(bench: Bench) -> None:
    """What another owns by now is not done to its end a second time."""
    ended: list[str] = []

    async def slow(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    installed = handler(slow)
    await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed, lease=0.03)
    await dispatcher.start()
    await until(first_is_leased)
    claimed = await bench.store.claim("thief", {"h": 1}, 60, bench.clock.now + 1)
    assert len(claimed) == 1
    await until(lambda: bool(ended))
    await dispatcher.stop(1)
    assert [each.name for each in bench.told] == ["dispatch.lost"]


async def test_a_dispatch_that_kills_its_process_dies_in_the_end(bench: Bench) -> None:
    """F23: runs that ended nowhere count, so that a poisonous event cannot kill for ever."""
    run, seen = scripted()
    installed = handler(run, retry=Backoff(attempts=2))
    id = await bench.add("t", [installed])
    for _ in range(2):
        assert len(await bench.store.claim("dead process", {"h": 1}, 60, bench.clock.now)) == 1
        bench.clock.now += 61
    await bench.dispatcher(installed).drain()
    dispatch = await bench.state(id)
    assert dispatch.state is DispatchState.DEAD
    assert "did not end" in (dispatch.error or "")
    assert not seen


async def test_after_waits_and_sees_the_result(bench: Bench) -> None:
    """`after`: the successor runs when the predecessor is done, and is shown what it returned."""
    keep, _ = scripted({"kept": 1})
    team, seen = scripted()
    handlers = [handler(team, "team", after=("keep",)), handler(keep, "keep")]
    await bench.add("t", handlers)
    assert await bench.dispatcher(*handlers).drain() == 2
    assert seen[0].earlier["keep"].result == {"kept": 1}


async def test_after_goes_on_when_the_predecessor_is_dead(bench: Bench) -> None:
    """`after`: a dead predecessor holds nobody up, and its error is there to be told."""
    keep, _ = scripted(GiveUp("disk full"))
    team, seen = scripted()
    handlers = [handler(team, "team", after=("keep",)), handler(keep, "keep")]
    await bench.add("t", handlers)
    await bench.dispatcher(*handlers).drain()
    earlier = seen[0].earlier["keep"]
    assert (earlier.state, earlier.error) == (DispatchState.DEAD, "disk full")


async def test_concurrency_holds(bench: Bench) -> None:
    """F26: however much is due, no more than `concurrency` run at once."""
    now = most = 0

    async def count(event: Event, context: Context) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    installed = handler(count, concurrency=3)
    for number in range(30):
        await bench.add(str(number), [installed])
    assert await bench.dispatcher(installed).drain() == 30
    assert most == 3


async def test_the_rate_holds_after_an_outage(bench: Bench) -> None:
    """F26: a thousand due at once leave at the handler's rate, with no burst to catch up."""
    run, seen = scripted()
    installed = handler(run, rate=2.0, concurrency=100)
    for number in range(1000):
        await bench.add(str(number), [installed])
    dispatcher = bench.dispatcher(installed)
    bench.clock.now += 3600
    counts = []
    for _ in range(5):
        counts.append(await dispatcher.drain())
        bench.clock.now += 1
    assert counts == [2, 2, 2, 2, 2]
    assert len(seen) == 10


def test_a_clock_that_steps_back_neither_gives_nor_takes_places() -> None:
    """F6: the rate survives a step of the clock."""
    slots = ConcurrencySlots(handler(scripted()[0], rate=1.0))
    slots.start(1000)
    assert (slots.available(1000), slots.rate_wait(1000)) == (0, 1.0)
    assert (slots.available(500), slots.rate_wait(500)) == (0, 1.0)
    assert (slots.available(501), slots.rate_wait(501)) == (1, 0.0)


async def test_the_background_loop_waits_for_the_rate_itself(bench: Bench) -> None:
    """A handler out of tokens is looked at again when its rate allows, not at the next poll."""
    run, seen = scripted()
    installed = handler(run, rate=50.0, concurrency=1)
    dispatcher = Dispatcher(bench.store, [installed], owner="one", poll=30)
    for number in range(52):
        await bench.add(str(number), [installed])
    await dispatcher.start()
    await until(lambda: len(seen) == 52)
    await dispatcher.stop(1)
    assert len(seen) == 52


class Gated(MemoryStore):
    """A store that takes its time to record."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def settle(self, *args: Any) -> bool:
        await self.gate.wait()
        return await super().settle(*args)

    async def pause(self, *args: Any) -> None:
        await self.gate.wait()
        await super().pause(*args)


async def gated(count: int, installed: Installed) -> tuple[Gated, Dispatcher]:
    """A dispatcher at work, with so many events in a store whose gate is closed."""
    bench = Bench()
    store = bench.store = Gated()
    await store.open()
    for number in range(count):
        await bench.add(str(number), [installed])
    dispatcher = bench.dispatcher(installed)
    await dispatcher.start()
    return store, dispatcher


async def test_the_next_one_runs_while_an_outcome_is_recorded() -> None:
    """F20: but where the store takes none, no more than a second set of places is filled."""
    run, seen = scripted()
    store, dispatcher = await gated(9, handler(run, concurrency=2))
    await until(lambda: len(seen) == 4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(seen) == 4
    store.gate.set()
    await until(lambda: len(seen) == 9)
    await dispatcher.stop(1)
    assert (await store.stats()).depth == {}


async def test_nothing_runs_before_a_pause_is_recorded() -> None:
    """F27: an overloaded downstream is not asked once more in between."""
    run, seen = scripted(Retry("busy", after=60, pause=True))
    store, dispatcher = await gated(3, handler(run, concurrency=1))
    await until(lambda: len(seen) == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    store.gate.set()
    await dispatcher.stop(1)
    assert len(seen) == 1
    assert (await store.next_due(["h"]) or 0) >= 1060


async def test_two_dispatchers_share_a_rate(bench: Bench) -> None:
    """F26: more workers do not call a downstream more often."""
    run, seen = scripted()
    installed = handler(run, rate=4.0, concurrency=3)
    for number in range(20):
        await bench.add(str(number), [installed])
    dispatchers = [bench.dispatcher(installed, owner=owner) for owner in ("one", "two")]
    for count in (4, 6, 8, 12):
        await asyncio.gather(*(each.drain() for each in dispatchers))
        assert len(seen) == count
        bench.clock.now += 0.5 if count < 8 else 60


async def test_what_another_process_used_of_the_rate_is_waited_for(bench: Bench) -> None:
    """The dispatcher looks when the rate lets the next one start, and not at the next poll."""
    run, seen = scripted()
    installed = handler(run, rate=40.0)
    for number in range(41):
        await bench.add(str(number), [installed])
    others = await bench.store.claim("other", {"h": 40}, 60, time.time(), {"h": 40.0})
    dispatcher = Dispatcher(bench.store, [installed], owner="one", poll=30)
    await dispatcher.start()
    await until(lambda: len(seen) == 1)
    await dispatcher.stop(1)
    assert (len(others), len(seen)) == (40, 1)


@pytest.mark.parametrize(("rate", "least"), [(50.0, 0.1), (1.0, 0.01), (0.1, 0.01)])
async def test_looks_have_a_distance(bench: Bench, rate: float, least: float) -> None:
    """Many workers do not ask all the time: a fast rate gives later what it did not give now."""
    installed = handler(scripted()[0], rate=rate)
    await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed, poll=5)
    assert await dispatcher._idle() == least
    await bench.store.claim("other", {"h": 1}, 60, bench.clock.now, {"h": rate})
    assert await dispatcher._idle() == 5


async def test_a_new_event_wakes_the_dispatcher_at_once(bench: Bench) -> None:
    """In one process nobody waits for a poll."""
    run, seen = scripted()
    installed = handler(run)
    dispatcher = bench.dispatcher(installed, poll=60)
    await dispatcher.start()
    await asyncio.sleep(0.01)
    await bench.add("t", [installed])
    await until(lambda: len(seen) == 1)
    await dispatcher.stop(1)
    assert seen[0].attempt == 1


async def test_polling_finds_what_nobody_woke_it_for(bench: Bench) -> None:
    """What another process stored is found by the next look."""
    run, seen = scripted()
    installed = handler(run)
    bench.store.subscribe = lambda wake: None  # type: ignore[method-assign]
    dispatcher = bench.dispatcher(installed, poll=0.01)
    await dispatcher.start()
    await asyncio.sleep(0.005)
    await bench.add("t", [installed])
    await until(lambda: len(seen) == 1)
    await dispatcher.stop(1)
    assert len(seen) == 1


async def test_stop_lets_what_runs_finish(bench: Bench) -> None:
    """F40: within the grace a running handler ends its work, and nothing new begins."""
    began = asyncio.Event()

    async def work(event: Event, context: Context) -> str:
        began.set()
        await asyncio.sleep(0.02)
        return "finished"

    installed = handler(work, concurrency=1)
    first = await bench.add("a", [installed])
    second = await bench.add("b", [installed])
    dispatcher = bench.dispatcher(installed)
    await dispatcher.start()
    await began.wait()
    await dispatcher.stop(5)
    assert (await bench.state(first)).result == "finished"
    assert (await bench.state(second)).state is DispatchState.PENDING


async def test_stop_gives_back_what_takes_too_long(bench: Bench) -> None:
    """F40: past the grace the lease is given back, and the attempt does not count."""
    installed = handler(hang_for_ever)
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed)
    await dispatcher.start()
    await until(first_is_leased)
    await dispatcher.stop(0.01)
    dispatch = await bench.state(id)
    assert (dispatch.state, dispatch.tries, dispatch.attempt) == (DispatchState.PENDING, 0, 1)
    assert dispatch.due_at <= bench.clock.now
    assert [each.outcome for each in await bench.store.attempts(id)] == ["released"]


async def hang_for_ever(event: Event, context: Context) -> None:
    await asyncio.Event().wait()


async def test_stop_closes_every_handler(bench: Bench) -> None:
    """One handler's failing close is told and keeps nobody else's from happening."""
    closed: list[str] = []

    async def fails() -> None:
        raise ValueError("x")

    async def closes() -> None:
        closed.append("b")

    handlers = [
        handler(scripted()[0], "a", close=fails),
        handler(scripted()[0], "b", close=closes),
        handler(scripted()[0], "c"),
    ]
    await bench.dispatcher(*handlers).stop(0)
    assert closed == ["b"]
    assert [(each.name, each.handler) for each in bench.told] == [("handler.failed", "a")]


async def test_a_second_start_is_none(bench: Bench) -> None:
    """One loop works, and one stop ends it."""
    before = asyncio.all_tasks()
    dispatcher = bench.dispatcher(handler(scripted()[0]))
    await dispatcher.start()
    started = asyncio.all_tasks()
    await dispatcher.start()
    assert asyncio.all_tasks() == started
    await dispatcher.stop(1)
    assert asyncio.all_tasks() == before


async def test_handlers_are_closed_once_a_use(bench: Bench) -> None:
    """F41, F45: two stops close once; after another run, the next stop closes again."""
    closed: list[str] = []

    async def closes() -> None:
        closed.append("h")

    run, seen = scripted()
    installed = handler(run, close=closes)
    dispatcher = bench.dispatcher(installed)
    await dispatcher.stop(0)
    await dispatcher.stop(0)
    assert closed == ["h"]
    await bench.add("t", [installed])
    await dispatcher.drain()
    await dispatcher.stop(0)
    assert (len(seen), closed) == (1, ["h", "h"])


async def test_a_close_that_hangs_holds_up_no_shutdown(bench: Bench) -> None:
    """F40: a handler has a bounded time to let go; that it did not is told."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    installed = handler(scripted()[0], close=hangs)
    await bench.dispatcher(installed, close_timeout=0.01).stop(0)
    assert [(each.name, each.error) for each in bench.told] == [("handler.failed", "TimeoutError")]


async def test_a_drain_ends_at_a_stop(bench: Bench) -> None:
    """F40: what drains beside a shutdown finishes what it began, and claims nothing more."""
    began = asyncio.Event()

    async def work(event: Event, context: Context) -> None:
        began.set()
        await asyncio.sleep(0.01)

    installed = handler(work, concurrency=1)
    first = await bench.add("a", [installed])
    second = await bench.add("b", [installed])
    dispatcher = bench.dispatcher(installed)
    draining = asyncio.create_task(dispatcher.drain())
    await began.wait()
    await dispatcher.stop(5)
    assert await draining == 1
    assert (await bench.state(first)).state is DispatchState.DONE
    assert (await bench.state(second)).state is DispatchState.PENDING


async def test_drain_stops_at_its_limit(bench: Bench) -> None:
    """A schedule can bound what one run takes on."""
    one, two = handler(scripted()[0], "one"), handler(scripted()[0], "two")
    for number in range(5):
        await bench.add(str(number), [one, two])
    dispatcher = bench.dispatcher(one, two)
    assert await dispatcher.drain(limit=3) == 3
    assert await dispatcher.drain(limit=0) == 0
    assert await dispatcher.drain() == 7


async def test_drain_gives_back_at_its_deadline(bench: Bench) -> None:
    """F41: at the deadline what has not ended is free for the next run."""
    installed = handler(hang_for_ever)
    id = await bench.add("t", [installed])
    assert await bench.dispatcher(installed).drain(deadline=0.02) == 1
    assert (await bench.state(id)).state is DispatchState.PENDING
    assert await bench.dispatcher(installed, owner="two").drain(deadline=0) == 0


async def test_drain_with_a_deadline_returns_when_nothing_is_left(bench: Bench) -> None:
    """A deadline is a limit, not a duration."""
    installed = handler(scripted()[0])
    await bench.add("t", [installed])
    async with asyncio.timeout(1):
        assert await bench.dispatcher(installed).drain(deadline=60) == 1


class Flaky(MemoryStore):
    """A store whose named methods fail for a while."""

    def __init__(self, *broken: str, error: Exception | None = None) -> None:
        super().__init__()
        self.broken = list(broken)
        self.error = error or StoreUnavailable("away")

    def _fail(self, name: str) -> None:
        if name in self.broken:
            self.broken.remove(name)
            raise self.error

    async def claim(self, *args: Any) -> Any:
        self._fail("claim")
        return await super().claim(*args)

    async def settle(self, *args: Any) -> bool:
        self._fail("settle")
        return await super().settle(*args)

    async def extend(self, *args: Any) -> list[Dispatch]:
        self._fail("extend")
        return await super().extend(*args)

    async def pause(self, *args: Any) -> None:
        self._fail("pause")
        await super().pause(*args)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("a fault of ours")])
async def test_the_loop_outlives_a_store_that_fails(error: Exception) -> None:
    """F20: the loop says so, and works when the store is back."""
    bench = Bench()
    bench.store = Flaky("claim", "claim", error=error)
    await bench.store.open()
    run, seen = scripted()
    installed = handler(run)
    await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed, poll=0.005)
    await dispatcher.start()
    await until(lambda: len(seen) == 1)
    await dispatcher.stop(1)
    name = "store.failed" if isinstance(error, StoreUnavailable) else "dispatcher.failed"
    assert [each.name for each in bench.told][:2] == [name, name]


async def test_an_outcome_waits_for_the_store() -> None:
    """F20: what a handler did is recorded when the store is back, not done again."""
    bench = Bench()
    bench.store = Flaky("settle", "settle", "pause")
    await bench.store.open()
    run, seen = scripted(Retry("x", after=1, pause=True))
    installed = handler(run)
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed, settle_retry_interval=0.001).drain()
    assert len(seen) == 1
    assert (await bench.state(id)).state is DispatchState.PENDING
    assert [each.name for each in bench.told] == ["store.failed"] * 3 + ["dispatch.settled"]


async def test_a_stop_does_not_wait_for_a_store_that_is_away() -> None:
    """F20, F40: the outcome is lost then, the lease runs out, and the event is handled again."""
    bench = Bench()
    bench.store = Flaky(*["settle"] * 1000)
    await bench.store.open()
    installed = handler(scripted()[0])
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed)
    await dispatcher.start()
    await until(lambda: any(each.name == "store.failed" for each in bench.told))
    await dispatcher.stop(1)
    assert (await bench.state(id)).state is DispatchState.LEASED


async def test_a_failed_heartbeat_is_told_and_tried_again() -> None:
    """F20: a store that is away for one beat costs no lease."""
    bench = Bench()
    bench.store = Flaky("extend")
    await bench.store.open()
    installed = handler(hang_for_ever)
    id = await bench.add("t", [installed])
    dispatcher = bench.dispatcher(installed, lease=0.03)
    await dispatcher.start()
    await until(first_is_leased)
    bench.clock.now += 5
    async with asyncio.timeout(5):
        while (await bench.state(id)).due_at < 1005:
            await asyncio.sleep(0.005)
    await dispatcher.stop(0)
    assert bench.told[0].name == "store.failed"


async def test_a_fault_in_settling_is_told(bench: Bench) -> None:
    """A fault of ours in the background is an event, never silence."""

    async def broken(*args: object) -> bool:
        raise ValueError("ours")

    installed = handler(scripted()[0])
    await bench.add("t", [installed])
    bench.store.settle = broken  # type: ignore[method-assign,assignment]
    await bench.dispatcher(installed).drain()
    assert [(each.name, each.handler) for each in bench.told] == [("dispatcher.failed", "h")]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (SystemExit(1), "Exited: called sys.exit"),
        (asyncio.CancelledError(), "TimedOut: cancelled itself"),
        (TimeoutError("own"), "TimeoutError: own"),
    ],
)
async def test_what_else_a_handler_may_raise(
    bench: Bench, raised: BaseException, error: str
) -> None:
    """A handler's exit or cancellation of itself is a failed attempt, and ends nothing else."""
    installed = handler(scripted(raised)[0])
    id = await bench.add("t", [installed])
    await bench.dispatcher(installed).drain()
    assert (await bench.state(id)).error == error


async def test_others_dispatches_are_left_alone(bench: Bench) -> None:
    """A process without a handler leaves its dispatches to those who have it."""
    mine, other = handler(scripted()[0], "mine"), handler(scripted()[0], "other")
    id = await bench.add("t", [mine, other])
    assert await bench.dispatcher(mine).drain() == 1
    assert (await bench.state(id, "other")).state is DispatchState.PENDING


async def test_what_is_told_holds_no_body(bench: Bench) -> None:
    """F16: the details of a settled dispatch name ids and outcome only."""
    installed = handler(scripted()[0])
    event = Event("s:t:completed", "s", "prediction.completed", body=b'{"prompt":"hush"}')
    await bench.store.add(event, {"h": ()})
    await bench.dispatcher(installed).drain()
    assert "hush" not in json.dumps([str(each) for each in bench.told])
    assert bench.told[0].outcome == "done"


def test_outcome_words_match_the_attempt_rows() -> None:
    """Log, metrics and attempt rows use the same four words."""
    from receiver.dispatch.dispatcher import _outcome_fields
    from receiver.event import Dead, Done, Released, RetryAt

    outcomes: list[Outcome] = [Done(), RetryAt(1, "e"), Dead("e"), Released()]
    assert [_outcome_fields(each)[0] for each in outcomes] == ["done", "retry", "dead", "released"]
