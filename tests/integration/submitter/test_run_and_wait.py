"""`run` and `wait`: the result of what was paid for once, by the fewest questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from receiver.build import ReceiverParts, build
from receiver.config import Secret, Settings
from submitter.errors import (
    AuthFailed,
    BadInput,
    NotFound,
    StillRunning,
    SubmissionUnknown,
    Unavailable,
)
from submitter.ledger.base import Ledger, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction, TaskFailed
from submitter.settings import SubmitSettings
from submitter.simulator.server import serving
from submitter.submit.context_token import Seal
from tests.support.cuttable_transport import BOTH_LEDGERS, KLING, answering
from tests.support.submits import INPUT, Gate, World, on_file, refusing, surroundings
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

NEVER = 100_000.0
"""Seconds until anything is overdue: no timer asks in the time of a test."""


@pytest.fixture
async def world(ledger: Ledger) -> AsyncIterator[World]:
    async with surroundings(ledger) as world:
        yield world


def lost(times: int, *, created: bool = False) -> Any:
    """Loses the first answers to a billed request; the request too, unless it created a task."""
    left = [None] * times

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        if not (left and request.url.path.endswith(KLING)):
            return None
        left.pop()
        if created:
            async with httpx.AsyncClient() as http:
                await http.post(
                    httpx.URL(request.url), content=request.content, headers=request.headers
                )
        raise httpx.ReadError("lost")

    return meddle


@asynccontextmanager
async def receiving(world: World, folder: Path) -> AsyncIterator[tuple[ReceiverParts, str, Seal]]:
    """A real receiver over HTTP."""
    key = Fernet.generate_key().decode()
    settings = Settings(
        directory=folder,
        database=f"sqlite:///{folder / 'inbox.db'}",
        seal_keys=(Secret(key),),
        dispatch="external",
        admin_token=Secret("s3same"),
    )
    parts = build(settings, secrets=[world.sim.secret])
    async with serving(parts.app, lifespan=True) as url:
        yield parts, url, Seal([key])


# -- the result ------------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_run(world: World) -> None:
    """Submitted, waited for, and the result returned; without a webhook it is asked for."""
    async with world.client() as wave:
        done = await wave.run(KLING, INPUT, key="k")
    assert done.succeeded
    assert done.outputs
    assert world.posts == len(world.sim.tasks) == 1
    assert await world.state("k") is State.FINISHED


@BOTH_LEDGERS
async def test_a_result_that_is_told_is_not_asked_for(world: World) -> None:
    """One submit, no question: whoever tells the ledger tells who waits."""
    async with world.client(overdue=NEVER) as wave:
        running = asyncio.create_task(wave.run(KLING, INPUT, key="k"))
        await until(lambda: bool(world.sim.tasks))
        told = Prediction(world.sim.tasks[0].id, "completed")
        await world.ledger.finish([Result(told, "k", delivered=True)], 1.0)
        assert (await running).id == told.id
    assert (world.posts, world.questions) == (1, 0)
    assert len(world.wire.sent) == 1


async def test_a_result_that_is_there_needs_no_time(world: World) -> None:
    """Whoever has no time to wait gets what is known, and nobody is asked."""
    async with world.client() as wave:
        submission = await wave.submit(KLING, INPUT)
        done = await submission.result()
        asked = world.questions
        assert (await submission.result(timeout=0)).id == done.id
    assert world.questions == asked


async def test_a_failed_task_is_an_answer(world: World) -> None:
    """`run` raises nothing about it; `raise_for_status` does."""
    async with world.client() as wave:
        done = await wave.run(KLING, {**INPUT, "prompt": "[moderated]"})
    assert (done.status, done.code) == ("failed", 1200)
    with pytest.raises(TaskFailed, match="moderation"):
        done.raise_for_status()


@pytest.mark.parametrize("same_file", [True, False])
async def test_with_a_receiver(ledger: Ledger, tmp_path: Path, same_file: bool) -> None:
    """One submit and no question, by the receiver's own file or through its API."""
    async with (
        surroundings(ledger) as world,
        receiving(world, tmp_path) as (parts, url, seal),
        on_file(tmp_path / "inbox.db") as same,
    ):
        token = None if same_file else "s3same"
        settings = SubmitSettings(overdue=NEVER, admin_token=token)
        mine = same if same_file else world.ledger
        async with world.client(webhook_url=url, seal=seal, ledger=mine, settings=settings) as wave:
            async with asyncio.timeout(60):
                done = await asyncio.gather(
                    *(wave.run(KLING, INPUT, context=number) for number in range(10))
                )
        assert all(each.succeeded for each in done)
        assert len({each.id for each in done}) == len(world.sim.tasks) == 10
        assert (world.sim.calls["submit"], world.sim.calls["result"]) == (10, 0)
        events = [listed.event for listed in await parts.store.events(limit=100)]
    assert sorted(str(event.context) for event in events) == [str(n) for n in range(10)]


async def test_a_webhook_before_the_answer(ledger: Ledger, tmp_path: Path) -> None:
    """F28: also through the receiver's API, where the task's id was not known when it came."""
    async with (
        surroundings(ledger) as world,
        receiving(world, tmp_path) as (_, url, seal),
    ):
        world.spoil("early-webhook")
        settings = SubmitSettings(overdue=NEVER, admin_token="s3same")
        async with world.client(webhook_url=url, seal=seal, settings=settings) as wave:
            async with asyncio.timeout(60):
                assert (await wave.run(KLING, INPUT)).succeeded
        assert world.sim.calls["result"] == 0


async def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    """Another process waits for what the first one has submitted, by key or by task id."""
    path = tmp_path / "ledger.db"
    async with surroundings(MemoryLedger()) as world:
        async with on_file(path) as ledger, world.client(ledger=ledger) as wave:
            submission = await wave.submit(KLING, INPUT, key="k")
        async with on_file(path) as ledger, world.client(ledger=ledger) as wave:
            assert submission.task_id is not None
            by_key, by_id = await asyncio.gather(wave.wait("k"), wave.wait(submission.task_id))
        assert by_key.id == by_id.id == submission.task_id
        async with on_file(path) as ledger, world.client(ledger=ledger) as wave:
            assert (await wave.run(KLING, INPUT, key="k")).id == by_key.id
    assert world.posts == 1


# -- lost answers ----------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_a_lost_answer_is_settled(world: World) -> None:
    """F32: the task is found in the history, and paid once."""
    world.wire.meddle = lost(1, created=True)
    async with world.client() as wave:
        done = await wave.run(KLING, INPUT, key="k")
    assert done.succeeded
    assert world.posts == len(world.sim.tasks) == 1
    assert (await world.entry("k")).tries == 1


@BOTH_LEDGERS
async def test_what_was_not_created_is_sent_again(world: World) -> None:
    """F32: only once no look has found it, and under the same key."""
    world.wire.meddle = lost(1)
    async with world.client(overdue=0.3) as wave:
        done = await wave.run(KLING, INPUT, key="k")
    assert done.succeeded
    assert (world.posts, len(world.sim.tasks)) == (2, 1)
    assert (await world.entry("k")).tries == 2
    assert world.wire.count("POST", "/predictions") >= 4


async def test_what_is_never_created_ends(world: World) -> None:
    """An API that loses every request is given up on."""
    world.wire.meddle = lost(1000)
    async with world.client(overdue=0.06) as wave:
        with pytest.raises(Unavailable, match="3 times"):
            await wave.run(KLING, INPUT, key="k")
    assert world.posts == 3
    assert await world.state("k") is State.REJECTED


async def test_two_who_run_one_key(world: World) -> None:
    """F32: both wait for one task, also where its request was lost at first."""
    world.wire.meddle = lost(1)
    async with world.client(overdue=0.3) as one, world.client(overdue=0.3) as other:
        done = await asyncio.gather(*(each.run(KLING, INPUT, key="k") for each in (one, other) * 3))
    assert len({each.id for each in done}) == len(world.sim.tasks) == 1
    assert world.posts == 2


async def test_all_faults(world: World) -> None:
    """F32: under lost answers, refusals and silence, each task is billed once."""
    faults = "lost-answer=0.1,reset=0.1,lost-request=0.1,error-500=0.1,error-502=0.1,rate-limit=0.2"
    world.spoil(f"{faults},missing-fields=0.2,null-nsfw=0.5,object-outputs=0.3,unknown-status=0.3")
    async with world.client(overdue=0.3) as wave, asyncio.timeout(120):
        done = await asyncio.gather(
            *(
                wave.run(KLING, {**INPUT, "prompt": f"take {number}"}, key=f"k{number}")
                for number in range(30)
            )
        )
    assert all(each.succeeded for each in done)
    prompts = [task.input["prompt"] for task in world.sim.tasks]
    assert sorted(prompts, key=str) == sorted((f"take {number}" for number in range(30)), key=str)
    entries = await world.ledger.find([f"k{number}" for number in range(30)])
    by_id = {task.id: task.input["prompt"] for task in world.sim.tasks}
    assert all(by_id[entry.task_id or ""] == entry.input["prompt"] for entry in entries.values())


# -- deadlines -------------------------------------------------------------------------------------


@pytest.fixture
async def slow(ledger: Ledger) -> AsyncIterator[World]:
    """Tasks that do not end in the time of a test."""
    async with surroundings(ledger, speed=0.01) as world:
        yield world


async def test_at_the_deadline_the_api_is_asked_once(slow: World) -> None:
    """A task that goes on is told by its id and status; it is not lost."""
    async with slow.client(overdue=NEVER) as wave:
        submission = await wave.submit(KLING, INPUT, key="k")
        with pytest.raises(StillRunning) as caught:
            await wave.run(KLING, INPUT, timeout=0.5, key="k")
        assert slow.questions == 1
        task = slow.sim.tasks[0].id
        assert (caught.value.key, caught.value.task_id, caught.value.status) == (
            "k",
            task,
            "created",
        )
        assert str(caught.value) == (
            f"{task} has not ended yet (status created); it goes on, and `wavehook wait {task}` "
            "waits for it again"
        )
        with pytest.raises(StillRunning):
            await submission.result(timeout=0)
        assert slow.questions == 2
        await slow.sim.forward(3600)
        assert (await submission.result(timeout=0)).succeeded
    assert (slow.posts, slow.questions) == (1, 3)
    entry = await slow.entry("k")
    assert (entry.state, entry.delivered) == (State.FINISHED, False)


@pytest.mark.parametrize(
    "answer", [refusing(500), refusing(429), refusing(404), None], ids=[500, 429, 404, "silent"]
)
async def test_a_deadline_without_an_answer(slow: World, answer: httpx.Response | None) -> None:
    """One question, no repetition: what is known is told."""

    async def silent(request: httpx.Request) -> None:
        if request.url.path.endswith("/result"):
            raise httpx.ReadError("lost")

    slow.wire.meddle = answering("/result", answer) if answer else silent
    async with slow.client(overdue=NEVER) as wave:
        submission = await wave.submit(KLING, INPUT)
        with pytest.raises(StillRunning, match="status created"):
            await submission.result(timeout=0.05)
    assert slow.questions == 1


async def test_a_deadline_and_a_refusal(slow: World) -> None:
    """What the caller can put right is raised."""
    slow.wire.meddle = answering("/result", refusing(401))
    async with slow.client(overdue=NEVER) as wave:
        submission = await wave.submit(KLING, INPUT)
        with pytest.raises(AuthFailed):
            await submission.result(timeout=0.05)


async def test_a_deadline_on_the_way(world: World) -> None:
    """The request goes on; that it may have created a task is told, and waited for again."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client() as wave:
        await wave.check(KLING, INPUT)  # the first one imports
        with pytest.raises(StillRunning, match="as far as is known") as caught:
            await wave.run(KLING, INPUT, timeout=0.5, key="k")
        assert caught.value.task_id is None
        gate.opened.set()
        assert (await wave.wait("k")).succeeded
    assert world.posts == 1


async def test_a_deadline_while_waiting_for_a_place(world: World) -> None:
    """Nothing was sent, and nothing is left behind."""
    async with world.client(limits=Limits(in_flight=1), overdue=NEVER) as wave:
        await wave.submit(KLING, INPUT)
        with pytest.raises(Unavailable, match=r"created nothing .*before it was sent"):
            await wave.run(KLING, INPUT, timeout=0.5, key="k")
        assert await wave.find(["k"]) == {}
    assert world.posts == 1


async def test_a_deadline_in_a_pause(world: World) -> None:
    """A 429 created nothing; that is told, not that something runs."""
    world.wire.meddle = answering(KLING, *[refusing(429, retry_after="500")] * 9)
    async with world.client() as wave:
        await wave.check(KLING, INPUT)  # the first one imports
        with pytest.raises(Unavailable, match=r"created nothing .*429"):
            await wave.run(KLING, INPUT, timeout=1.0, key="k")
    assert world.posts == 1


async def test_a_deadline_while_it_is_checked(world: World) -> None:
    """A catalogue that does not answer costs the caller no more than the caller's time."""

    async def meddle(request: httpx.Request) -> None:
        if request.url.path.endswith("/models"):
            await asyncio.Event().wait()

    world.wire.meddle = meddle
    async with world.client() as wave:
        with pytest.raises(Unavailable, match="not checked in time"):
            await wave.run("vendor/other", INPUT, timeout=0.1)
    assert world.posts == 0


@BOTH_LEDGERS
async def test_cancelling_loses_nothing(slow: World) -> None:
    """The task goes on, and its key finds it."""
    async with slow.client(overdue=NEVER) as wave:
        running = asyncio.create_task(wave.run(KLING, INPUT, key="k"))
        await until(lambda: bool(slow.sim.tasks))
        await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        done = Prediction(slow.sim.tasks[0].id, "completed")
        await slow.ledger.finish([Result(done, None)], 1.0)
        assert (await wave.run(KLING, INPUT, key="k")).id == done.id
    assert (slow.posts, slow.questions) == (1, 0)


# -- wait ------------------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_waiting_for_what_something_else_submitted(world: World) -> None:
    """A task that the ledger does not know is taken into it."""
    async with world.client() as wave:
        task = await wave.post(KLING, INPUT, None, timeout=20)
        # However late it is asked for the first time, it still runs then.
        running = {"id": task.id, "model": KLING, "status": "processing"}
        world.wire.meddle = answering("/result", httpx.Response(200, json={"data": running}))
        assert (await wave.wait(task.id)).succeeded
        assert (await wave.find([f"task:{task.id}"])).keys()
        assert (await wave.wait(task.id)).succeeded
    assert world.posts == 1


async def test_waiting_for_what_has_ended(world: World) -> None:
    """Of a task that has ended, and that nobody here submitted, the ledger needs nothing."""
    async with world.client() as wave:
        task = await wave.post(KLING, INPUT, None, timeout=20)
        async with asyncio.timeout(20):
            while not (await wave.result(task.id)).terminal:
                await asyncio.sleep(0.01)
        assert (await wave.wait(task.id)).succeeded
        assert await wave.find([f"task:{task.id}"]) == {}


async def test_waiting_for_a_strangers_task_while_nobody_answers(world: World) -> None:
    """The time to wait is also that of learning what the task is; then it is asked for once."""

    async def meddle(request: httpx.Request) -> None:
        if world.questions > 1:
            raise httpx.ConnectError("away")
        await asyncio.Event().wait()

    world.wire.meddle = meddle
    async with world.client() as wave:
        with pytest.raises(StillRunning, match="has not ended yet"):
            await wave.wait("t1", timeout=0.1)
    assert world.questions == 2


async def test_waiting_for_nothing(world: World) -> None:
    """What nobody knows is told as such."""
    async with world.client() as wave:
        with pytest.raises(NotFound):
            await wave.wait("nobody-knows")
        with pytest.raises(BadInput):
            await wave.wait("no task can have this id")


async def test_waiting_for_what_created_nothing(world: World) -> None:
    """The wait ends with the reason."""
    world.wire.meddle = lost(1)
    async with world.client(overdue=0.06) as wave:
        with pytest.raises(SubmissionUnknown, match="may have been created"):
            await wave.submit(KLING, INPUT, key="k")
        with pytest.raises(Unavailable, match=r"created nothing .*history"):
            await wave.wait("k")


async def test_a_closed_client_waits_for_nobody(slow: World) -> None:
    """Whoever waits at the end is told that the task goes on."""
    async with slow.client(overdue=NEVER) as wave:
        submission = await wave.submit(KLING, INPUT, key="k")
        waiting = asyncio.create_task(submission.result())
        await asyncio.sleep(0.05)
    with pytest.raises(StillRunning):
        await waiting
    with pytest.raises(RuntimeError, match="closed"):
        await submission.result()


async def test_a_deleted_task_ends_a_wait(slow: World) -> None:
    """A task that a person has removed is nothing to wait for."""
    async with slow.client(overdue=NEVER) as wave:
        submission = await wave.submit(KLING, INPUT)
        gone = {"id": submission.task_id, "status": "deleted"}
        slow.wire.meddle = answering("/result", refusing(200, {"code": 200, "data": gone}))
        assert (await submission.result(timeout=0)).status == "deleted"
