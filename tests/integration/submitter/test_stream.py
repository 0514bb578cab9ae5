"""Finished predictions as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from submitter.client import WaveSpeed
from submitter.errors import ApiError, StillRunning, SubmissionUnknown
from submitter.ledger.base import Ledger, Limits, Result
from submitter.prediction import Prediction
from submitter.results import stream as streaming_module
from tests.support.cuttable_transport import BOTH_LEDGERS, KLING, answering, intended, intent
from tests.support.submits import INPUT, Gate, World, refusing, surroundings
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

NEVER = 100_000.0


@pytest.fixture
async def world(ledger: Ledger) -> AsyncIterator[World]:
    async with surroundings(ledger) as world:
        yield world


async def collected(wave: WaveSpeed) -> list[str]:
    async with asyncio.timeout(30):
        return [prediction.id async for prediction in wave.stream()]


async def ids(world: World, *keys: str) -> list[str | None]:
    return [(await world.entry(key)).task_id for key in keys]


@BOTH_LEDGERS
async def test_each_is_given_once_and_then_it_ends(world: World) -> None:
    """All that were submitted, those that ended before as well; a second stream has none left."""
    keys = [f"k{number}" for number in range(20)]
    async with world.client() as wave:
        for key in keys:
            await wave.submit(KLING, INPUT, key=key)
        await wave.wait(keys[0])
        given = await collected(wave)
        assert sorted(given) == sorted(filter(None, await ids(world, *keys)))
        assert await collected(wave) == []


async def test_nothing_submitted(world: World) -> None:
    """Of nothing there is nothing to wait for."""
    async with world.client() as wave:
        assert await collected(wave) == []


@BOTH_LEDGERS
async def test_in_the_order_of_ending(world: World) -> None:
    """As they come, not as they were sent."""
    async with world.client(overdue=NEVER) as wave:
        for key in "abc":
            await wave.submit(KLING, INPUT, key=key)
        tasks = dict(zip("abc", await ids(world, *"abc"), strict=True))
        stream = wave.stream()
        for key in "cab":
            done = Prediction(tasks[key] or "", "completed")
            await world.ledger.finish([Result(done, key)], 1.0)
            assert (await anext(stream)).id == tasks[key]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert world.questions == 0


async def test_submits_while_it_streams(world: World) -> None:
    """What is submitted meanwhile is given too; a submit on its way keeps the stream open."""
    gate = Gate()
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, key="a")
        world.wire.meddle = gate.meddle
        submitting = asyncio.create_task(wave.submit(KLING, INPUT, key="b"))
        await gate.reached.wait()
        stream = wave.stream()
        assert (await anext(stream)).id == (await world.entry("a")).task_id
        rest = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.02)
        gate.opened.set()
        assert (await rest).id == (await submitting).task_id


async def test_submits_that_fail(world: World) -> None:
    """A submit that created nothing is not waited for, whenever it fails."""
    gate = Gate(answer=refusing(400))
    async with world.client() as wave:
        world.wire.meddle = answering(KLING, refusing(401))
        with pytest.raises(ApiError):
            await wave.submit(KLING, INPUT)
        world.wire.meddle = gate.meddle
        submitting = asyncio.create_task(wave.submit(KLING, INPUT))
        await gate.reached.wait()
        streaming = asyncio.create_task(collected(wave))
        await asyncio.sleep(0.02)
        gate.opened.set()
        assert await streaming == []
        with pytest.raises(ApiError):
            await submitting


async def test_lost_answers_are_given_as_well(world: World) -> None:
    """F32: a lost answer that is settled is a result like any other; one for nothing is none."""
    async with world.client(overdue=0.3) as wave:
        for fault in ("lost-answer", "lost-request"):
            world.spoil(fault)
            with pytest.raises(SubmissionUnknown):
                await wave.submit(KLING, {**INPUT, "prompt": fault}, key=fault)
        world.spoil("")
        assert await collected(wave) == [world.sim.tasks[0].id]
    assert world.posts == 2


async def test_two_streams(world: World) -> None:
    """Each gives all that was there when it began."""
    async with world.client() as wave:
        for _ in range(5):
            await wave.submit(KLING, INPUT)
        one, other = await asyncio.gather(collected(wave), collected(wave))
    assert sorted(one) == sorted(other)
    assert len(one) == 5


async def test_what_run_returns_is_not_given_again(world: World) -> None:
    """A result that its caller has is no news."""
    async with world.client() as wave:
        await wave.run(KLING, INPUT)
        assert await collected(wave) == []


@BOTH_LEDGERS
async def test_following(world: World) -> None:
    """Whatever ends in the ledger, whoever submitted it, each once, until it is closed."""
    async with world.client(overdue=NEVER) as wave:
        await wave.submit(KLING, INPUT, key="mine")
        await intended(world.ledger, intent("others", 1.0), 1.0)
        stream = wave.stream(follow=True)
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        told = {"others": "t-others", "mine": world.sim.tasks[0].id}
        for key, task in told.items():
            await world.ledger.finish([Result(Prediction(task, "completed"), key)], 1.0)
        assert (await following).id == "t-others"
        assert (await anext(stream)).id == told["mine"]
        more = asyncio.ensure_future(anext(stream))
        await wave.submit(KLING, INPUT, key="more")
        task = world.sim.tasks[1].id
        await world.ledger.finish([Result(Prediction(task, "completed"), "more")], 1.0)
        assert (await more).id == task
        last = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.02)
    with pytest.raises(StopAsyncIteration):
        await last


async def test_following_gives_what_ended_before_once(world: World) -> None:
    """A submit of this client that has ended comes first."""
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, key="k")
        await wave.wait("k")
        stream = wave.stream(follow=True)
        assert (await anext(stream)).id == world.sim.tasks[0].id
        more = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        assert not more.done()
        more.cancel()
        await asyncio.gather(more, return_exceptions=True)
        await stream.aclose()


async def test_a_closed_client_ends_its_streams(ledger: Ledger) -> None:
    """A stream that is not done says so, instead of ending as if it were."""
    async with surroundings(ledger, speed=0.01) as world:
        async with world.client(overdue=NEVER) as wave:
            await wave.submit(KLING, INPUT)
            streaming = asyncio.create_task(collected(wave))
            await asyncio.sleep(0.05)
        with pytest.raises(StillRunning):
            await streaming
        with pytest.raises(RuntimeError, match="async with"):
            await collected(wave)


async def test_a_stream_that_is_left(world: World) -> None:
    """F45: who leaves a stream leaves no waits behind, and the next stream has the rest."""
    async with world.client() as wave:
        for _ in range(5):
            await wave.submit(KLING, INPUT)
        stream = wave.stream()
        first = (await anext(stream)).id
        await stream.aclose()
        assert wave._waiters is not None
        await until(lambda: not wave._waiters._waits)
        rest = await collected(wave)
    assert len({first, *rest}) == 5
    assert len(rest) == 4


async def test_what_nobody_streams_does_not_grow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F45: of very many submits the oldest are not remembered."""
    monkeypatch.setattr(streaming_module, "MAX_REMEMBERED_KEYS", 3)
    async with world.client() as wave:
        for number in range(5):
            await wave.submit(KLING, INPUT, key=f"k{number}")
        given = await collected(wave)
        assert sorted(given) == sorted(filter(None, await ids(world, "k2", "k3", "k4")))


async def test_one_that_fails_while_others_wait_for_places(world: World) -> None:
    """With limits, a stream that frees places lets the next ones out, to the last."""
    async with world.client(limits=Limits(in_flight=3)) as wave:
        submitting = asyncio.gather(*(wave.submit(KLING, INPUT) for _ in range(10)))
        await until(lambda: world.posts > 0)
        given = await collected(wave)
        assert len(set(given)) == len(await submitting) == 10
