"""Submits: checked, written down, sent once, recorded, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from submitter.catalogue.kling import KlingImageToVideo
from submitter.errors import (
    ApiError,
    AuthFailed,
    BadInput,
    BadSettings,
    ContextTooLarge,
    InsufficientBalance,
    LedgerUnavailable,
    OverBudget,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)
from submitter.ledger.base import Entry, IntentWritten, Ledger, LimitReached, Limits, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from submitter.simulator import Simulator
from submitter.submit.context_token import Seal, Sealed
from tests.support.clocks import Clock
from tests.support.cuttable_transport import BOTH_LEDGERS, IMAGE, KLING, NOW, PRO, answering
from tests.support.pictures import png
from tests.support.submits import INPUT, Gate, World, on_file, refusing, surroundings
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PUBLIC = "https://hooks.example.com"
SEAL = Seal([Fernet.generate_key().decode()])
CREATED = refusing(200, {"code": 200, "data": {"id": "t", "status": "created"}})
PROMPT = "a PROMPT that nobody may see"


@pytest.fixture
async def world(ledger: Ledger) -> AsyncIterator[World]:
    async with surroundings(ledger) as world:
        yield world


def hooked(world: World, **more: Any) -> Any:
    """A client whose webhooks nobody hears: the simulator sends none to such an address."""
    return world.client(webhook_url=PUBLIC, seal=SEAL, **more)


def sent(world: World) -> httpx.Request:
    [request] = [each for each in world.wire.sent if each.url.path.endswith("i2v-standard")]
    return request


# -- what is sent --------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_a_submit(world: World) -> None:
    """One POST with the input; the answer names the task, and the ledger has it."""
    async with world.client() as wave:
        done = await wave.submit(KLING, {"image": IMAGE}, prompt="waves", key="k")
    assert json.loads(sent(world).content) == INPUT
    assert sent(world).url.query == b""
    [task] = world.sim.tasks
    assert (done.task_id, done.key, done.model) == (task.id, "k", KLING)
    assert done.prediction is not None
    assert done.prediction.status == "created"
    entry = await world.entry("k")
    assert (entry.state, entry.task_id, entry.input, entry.tries) == (
        State.ACCEPTED,
        task.id,
        INPUT,
        1,
    )


async def test_keys_are_made_up(world: World) -> None:
    """Without a key, each call is a task of its own."""
    async with world.client() as wave:
        keys = {(await wave.submit(KLING, INPUT)).key for _ in range(3)}
    assert len(keys) == len(world.sim.tasks) == 3


async def test_context_and_key_travel_sealed(world: World) -> None:
    """F28: the webhook's path ends with a token that opens to context, model and key."""
    world.wire.meddle = answering(KLING, CREATED)
    clock = Clock(NOW)
    async with hooked(world, clock=clock) as wave:
        await wave.submit(KLING, INPUT, context={"user": 7}, key="k")
    base, _, token = sent(world).url.params["webhook"].rpartition("/")
    assert base == f"{PUBLIC}/webhooks/wavespeed"
    assert SEAL.open(token, clock()) == Sealed({"user": 7}, KLING, "k")
    entry = await world.entry("k")
    assert (entry.context, entry.webhook) == ({"user": 7}, True)


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [(False, None), ("", None), ("https://other.example/x?y=1", "https://other.example/x?y=1")],
)
async def test_the_webhook_of_one_submit(
    world: World, webhook: str | bool, expected: str | None
) -> None:
    """A submit may go without a webhook, or with one of its own: the inbox is not to get it."""
    async with hooked(world) as wave:
        await wave.submit(KLING, INPUT, webhook=webhook, key="k")
    assert sent(world).url.params.get("webhook") == expected
    assert not (await world.entry("k")).webhook


async def test_a_typed_input(world: World) -> None:
    """A typed input knows its model; single fields may be added, none twice."""
    async with world.client() as wave:
        typed = KlingImageToVideo(prompt="waves", image=IMAGE, tier="pro")
        done = await wave.submit(typed, duration=10)
        with pytest.raises(BadInput, match="prompt: is given twice"):
            await wave.submit(typed, {"prompt": "hills"})
    assert done.model == PRO
    assert world.sim.tasks[0].input == {**INPUT, "duration": 10}


async def test_other_models_are_checked_by_the_live_catalogue(world: World) -> None:
    """A model without a built-in schema is asked for once; where nobody knows it, JSON will do."""
    schema = {"properties": {"size": {"type": "integer"}}, "type": "object"}
    model = {"model_id": "v/m", "api_schema": {"api_schemas": [{"request_schema": schema}]}}
    data = {"code": 200, "data": {"id": "t", "status": "created"}}
    world.wire.meddle = answering_many(
        {"/models": {"code": 200, "data": [model]}, "/v/m": data, "/v/unknown": data}
    )
    async with world.client() as wave:
        with pytest.raises(BadInput, match="size"):
            await wave.submit("v/m", size="large")
        await wave.submit("v/m", size=5)
        await wave.submit("v/unknown", anything=[1, {"x": None}])
        with pytest.raises(BadInput, match="finite"):
            await wave.submit("v/unknown", anything=float("nan"))
    assert world.wire.count("GET", "/models") == 1


def answering_many(bodies: dict[str, Any]) -> Any:
    async def meddle(request: httpx.Request) -> httpx.Response | None:
        body = next((body for end, body in bodies.items() if request.url.path.endswith(end)), None)
        return None if body is None else httpx.Response(200, json=body)

    return meddle


# -- what is not sent ------------------------------------------------------------------------------


async def test_all_faults_before_anything_is_sent(world: World) -> None:
    """Faults of fields, webhook, key and cap come together, each with its path; none is sent."""
    async with hooked(world) as wave:
        with pytest.raises(BadInput) as caught:
            await wave.submit(
                KLING,
                {"duration": 7, "image": IMAGE},
                webhook="http://a.example",
                duration=8,
                key="",
                max_cost=-1,
            )
    paths = {fault.path for fault in caught.value.faults}
    assert paths == {"duration", "prompt", "webhook", "key", "max_cost"}
    assert world.wire.sent == []
    assert await world.ledger.open_entries() == []


@pytest.mark.parametrize("key", ["x" * 201, "ü" * 101, "two\nlines", "\ud800", 17])
async def test_keys_that_are_none(world: World, key: Any) -> None:
    """F17: a key is short and printable, so that it fits a URL and a log line."""
    async with world.client() as wave:
        with pytest.raises(BadInput, match="200 bytes of printable text"):
            await wave.submit(KLING, INPUT, key=key)
    assert world.wire.sent == []


async def test_the_longest_key_and_context_fit(world: World) -> None:
    """The largest token that can be made is one that the receiver reads."""
    async with hooked(world) as wave:
        world.wire.meddle = answering(KLING, CREATED)
        await wave.submit(KLING, INPUT, key='"' * 200, context="x" * 2046)
    token = sent(world).url.params["webhook"].rpartition("/")[2]
    opened = SEAL.open(token, (await world.entry('"' * 200)).sent_at + 1)
    assert opened is not None
    assert opened.submission == '"' * 200


@pytest.mark.parametrize("cap", [float("nan"), -0.01, "0.5"])
async def test_caps_that_are_none(world: World, cap: Any) -> None:
    """A cap that no price is above would let all pass."""
    async with world.client() as wave:
        with pytest.raises(BadInput, match="max_cost"):
            await wave.submit(KLING, INPUT, max_cost=cap)
    assert world.wire.sent == []


async def test_a_context_too_large_is_told_as_such(world: World) -> None:
    """A context over the limit alone keeps its own error."""
    async with hooked(world) as wave:
        with pytest.raises(ContextTooLarge):
            await wave.submit(KLING, INPUT, context="x" * 3000)
    assert world.wire.sent == []


@pytest.mark.parametrize("webhook", [False, "https://other.example/x"])
async def test_a_context_needs_the_clients_webhook(world: World, webhook: str | bool) -> None:
    """A context that would not travel is refused, not lost."""
    async with hooked(world) as wave:
        with pytest.raises(BadInput, match="context"):
            await wave.submit(KLING, INPUT, context=1, webhook=webhook)
    assert world.wire.sent == []


@pytest.mark.parametrize(
    ("more", "setting"),
    [({"webhook_url": ""}, "WAVEHOOK_PUBLIC_URL"), ({"seal": None}, "WAVEHOOK_SEAL_KEYS")],
)
async def test_what_a_context_needs(
    world: World,
    more: dict[str, Any],
    setting: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A context without a way to travel names the setting that is missing."""
    monkeypatch.chdir(tmp_path)
    async with world.client(**{"webhook_url": PUBLIC, "seal": SEAL, **more}) as wave:
        with pytest.raises(BadSettings) as caught:
            await wave.submit(KLING, INPUT, context=1)
    assert caught.value.setting == setting
    assert world.wire.sent == []
    assert list(tmp_path.iterdir()) == []


async def test_a_check_sends_nothing(world: World) -> None:
    """`check` finds the faults, and leaves no trace."""
    async with world.client() as wave:
        await wave.check(KLING, INPUT, key="k")
        with pytest.raises(BadInput):
            await wave.check(KLING, INPUT, duration=7)
        assert await wave.find(["k"]) == {}
    assert world.wire.sent == []


# -- one key is paid once --------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_a_key_is_paid_once(world: World) -> None:
    """F32: a second submit under the key sends nothing and returns the first."""
    async with world.client() as wave:
        first = await wave.submit(KLING, INPUT, key="k", context=None)
        second = await wave.submit(KLING, INPUT, key="k")
    assert first.task_id == second.task_id
    assert world.posts == 1


@BOTH_LEDGERS
async def test_a_key_is_paid_once_by_many_at_once(world: World) -> None:
    """F32: of parallel submits under one key one is sent; the others are told of it."""
    async with world.client() as wave:
        done = await asyncio.gather(*(wave.submit(KLING, INPUT, key="k") for _ in range(20)))
        assert {each.key for each in done} == {"k"}
        assert (await wave.submit(KLING, INPUT, key="k")).task_id == world.sim.tasks[0].id
    assert world.posts == len(world.sim.tasks) == 1


async def test_a_key_is_paid_once_by_two_clients(tmp_path: Path, ledger: Ledger) -> None:
    """F22, F32: two processes on one file send each key once."""
    path = tmp_path / "shared.db"
    async with surroundings(ledger) as world, on_file(path) as mine, on_file(path) as theirs:
        async with world.client(ledger=mine) as one, world.client(ledger=theirs) as other:
            await asyncio.gather(
                *(
                    each.submit(KLING, INPUT, key=f"k{number}")
                    for number in range(10)
                    for each in (one, other)
                )
            )
        assert world.posts == len(world.sim.tasks) == 10


async def test_a_key_for_something_else(world: World) -> None:
    """A key that was used for another input or model is refused; nothing is sent."""
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, key="k")
        for model, input in ((KLING, {**INPUT, "prompt": "hills"}), (PRO, INPUT)):
            with pytest.raises(BadInput, match="choose a new one"):
                await wave.submit(model, input, key="k")
    assert len(world.sim.tasks) == 1


async def test_a_key_for_something_else_at_the_same_time(world: World) -> None:
    """Also where the first is just being sent."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client() as wave:
        first = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        other = asyncio.create_task(wave.submit(KLING, {**INPUT, "prompt": "hills"}, key="k"))
        await gate.reached.wait()
        with pytest.raises(BadInput, match="choose a new one"):
            await other
        gate.opened.set()
        await first
    assert len(world.sim.tasks) == 1


@BOTH_LEDGERS
async def test_a_key_whose_submit_was_refused_may_be_used_again(world: World) -> None:
    """What created nothing may be sent again under its key, put right."""
    world.wire.meddle = answering(KLING, refusing(400, {"code": 1401, "message": "bad"}))
    async with world.client() as wave:
        with pytest.raises(ApiError):
            await wave.submit(KLING, INPUT, key="k")
        assert await world.state("k") is State.REJECTED
        done = await wave.submit(KLING, {**INPUT, "prompt": "hills"}, key="k")
    assert done.task_id == world.sim.tasks[0].id
    assert (await world.entry("k")).tries == 2


async def test_a_failed_task_is_not_paid_again(world: World) -> None:
    """The key of a task that has ended returns its result."""
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, key="k")
        failed = Prediction(world.sim.tasks[0].id, "failed")
        await world.ledger.finish([Result(failed, "k")], 1.0)
        again = await wave.submit(KLING, INPUT, key="k")
    assert again.prediction is not None
    assert again.prediction.status == "failed"
    assert world.posts == 1


# -- answers that are none -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["lost-answer", "reset", "lost-request", "error-500", "error-502"]
)
async def test_a_lost_answer(world: World, fault: str) -> None:
    """F32: it is not sent again; the error names the key, by which the ledger settles it."""
    world.spoil(fault)
    async with world.client(overdue=300.0) as wave:
        with pytest.raises(SubmissionUnknown) as caught:
            await wave.submit(KLING, INPUT, key="k")
        again = await wave.submit(KLING, INPUT, key="k")
    assert caught.value.key == "k"
    assert "wavehook" in str(caught.value)
    assert world.posts == 1
    assert (again.task_id, again.prediction) == (None, None)
    entry = await world.entry("k")
    assert entry.state is State.UNKNOWN
    assert entry.reason


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusing(401), AuthFailed),
        (
            refusing(
                400, {"message": "insufficient balance", "error_code": "insufficient_credits"}
            ),
            ApiError,
        ),
        (refusing(402), InsufficientBalance),
        (refusing(307, location="https://elsewhere.example/"), ApiError),
    ],
    ids=range(4),
)
async def test_refusals(world: World, answer: httpx.Response, kind: type[ApiError]) -> None:
    """What the API refuses created nothing; it is sent once, and the ledger says why."""
    world.wire.meddle = answering(KLING, answer)
    async with world.client() as wave:
        with pytest.raises(kind):
            await wave.submit(KLING, INPUT, key="k")
    assert world.posts == 1
    entry = await world.entry("k")
    assert entry.state is State.REJECTED
    assert f"HTTP {answer.status_code}" in str(entry.reason)


async def test_where_nobody_listens(world: World) -> None:
    """A connection that was refused carried nothing."""

    async def meddle(request: httpx.Request) -> None:
        raise httpx.ConnectError("no")

    world.wire.meddle = meddle
    async with world.client() as wave:
        with pytest.raises(Unavailable):
            await wave.submit(KLING, INPUT, key="k")
    assert await world.state("k") is State.REJECTED


async def test_an_answer_that_takes_too_long(world: World) -> None:
    """F32: past the time limit nobody knows; what comes later changes nothing here."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client(timeout=0.05) as wave:
        with pytest.raises(SubmissionUnknown, match="no answer"):
            await wave.submit(KLING, INPUT, key="k")
    assert await world.state("k") is State.UNKNOWN


@pytest.mark.parametrize("headers", [{}, {"retry_after": "0.01"}])
async def test_a_429_is_waited_for(world: World, headers: dict[str, str]) -> None:
    """F27: a 429 created nothing; after a pause it is sent again, under its key."""
    world.wire.meddle = answering(KLING, *[refusing(429, **headers)] * 3)
    async with world.client() as wave:
        done = await wave.submit(KLING, INPUT, key="k")
    assert done.task_id == world.sim.tasks[0].id
    assert world.posts == 4
    assert (await world.entry("k")).tries == 4


async def test_429_without_end(world: World) -> None:
    """After many tries it is the caller's turn to wait."""
    world.wire.meddle = answering(KLING, *[refusing(429, retry_after="0")] * 100)
    async with world.client() as wave:
        with pytest.raises(RateLimited):
            await wave.submit(KLING, INPUT, key="k")
    assert world.posts == 10
    assert await world.state("k") is State.REJECTED


async def test_a_429_for_many(world: World) -> None:
    """F26, F27: many that are refused at once come through in the end, each billed once."""
    world.spoil("rate-limit=0.3")
    async with world.client(overdue=0.06) as wave:
        done = await asyncio.gather(*(wave.submit(KLING, INPUT) for _ in range(40)))
    assert len({each.task_id for each in done}) == len(world.sim.tasks) == 40


# -- cancelled and closed --------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_cancelled_on_its_way(world: World) -> None:
    """F32: who no longer waits loses nothing: the request goes on and is recorded."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client() as wave:
        submitting = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        await gate.reached.wait()
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert await world.state("k") is State.INTENDED
        gate.opened.set()
        again = await wave.run(KLING, INPUT, key="k")
    assert again.succeeded
    assert world.posts == 1


async def test_cancelled_on_its_way_to_an_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody waits for any longer is in the ledger, and nowhere else."""
    gate = Gate(answer=refusing(400))
    world.wire.meddle = gate.meddle
    async with world.client() as wave:
        submitting = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        await gate.reached.wait()
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        gate.opened.set()
    assert await world.state("k") is State.REJECTED
    assert "never retrieved" not in caplog.text


async def test_closing_waits_for_what_is_on_its_way(world: World) -> None:
    """A client that is closed lets requests end, and records them."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client() as wave:
        submitting = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        await gate.reached.wait()
        asyncio.get_running_loop().call_soon(gate.opened.set)
    assert (await submitting).task_id == world.sim.tasks[0].id
    assert await world.state("k") is State.ACCEPTED


async def test_closing_does_not_wait_for_ever(world: World) -> None:
    """F32: what takes longer is doubted, to be looked for."""
    gate = Gate()
    world.wire.meddle = gate.meddle
    async with world.client(close_timeout=0.01) as wave:
        submitting = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        await gate.reached.wait()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    entry = await world.entry("k")
    assert (entry.state, entry.reason) == (
        State.UNKNOWN,
        "the client was closed before the answer came",
    )


async def test_closing_ends_who_waits_for_a_place(world: World) -> None:
    """Whoever waits in the limits is told that nothing was sent."""
    async with world.client(limits=Limits(in_flight=1), overdue=300.0) as wave:
        await wave.submit(KLING, INPUT)
        waiting = asyncio.create_task(wave.submit(KLING, INPUT, key="k"))
        await asyncio.sleep(0.05)
    with pytest.raises(Unavailable, match="nothing was sent"):
        await waiting
    assert await world.ledger.find(["k"]) == {}


# -- a ledger that is away -------------------------------------------------------------------------


class Failing(MemoryLedger):
    """Fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.intends = self.accepts = self.doubts = self.rejects = 0

    async def intend(self, *given: Any) -> IntentWritten | LimitReached:
        self.intends = fail(self.intends)
        return await super().intend(*given)

    async def accept(self, *given: Any, **more: Any) -> Entry:
        self.accepts = fail(self.accepts)
        return await super().accept(*given, **more)

    async def mark_unknown(self, *given: Any, **more: Any) -> None:
        self.doubts = fail(self.doubts)
        await super().mark_unknown(*given, **more)

    async def reject(self, *given: Any) -> bool:
        self.rejects = fail(self.rejects)
        return await super().reject(*given)


def fail(left: int) -> int:
    if left:
        raise LedgerUnavailable("the disk is full")
    return 0


async def test_a_ledger_that_is_away_before(ledger: Ledger) -> None:
    """What cannot be written down is not sent."""
    failing = Failing()
    async with surroundings(failing) as world, world.client() as wave:
        failing.intends = 1
        with pytest.raises(LedgerUnavailable):
            await wave.submit(KLING, INPUT)
        assert world.wire.sent == []


async def test_a_ledger_that_takes_too_long() -> None:
    """Whose time is over is not sent any more: somebody may have doubted it, and sent it again."""
    clock = Clock(NOW)

    class Slow(MemoryLedger):
        async def intend(self, *given: Any) -> IntentWritten | LimitReached:
            answer = await super().intend(*given)
            clock.now += 65.0
            return answer

    async with surroundings(Slow()) as world, world.client(timeout=60.0, clock=clock) as wave:
        with pytest.raises(Unavailable, match="nothing was sent"):
            await wave.submit(KLING, INPUT, key="k")
        assert (world.wire.sent, await world.state("k")) == ([], State.REJECTED)


async def test_a_ledger_that_is_away_for_a_moment_after(caplog: pytest.LogCaptureFixture) -> None:
    """What was sent is recorded as soon as it can be."""

    class Once(Failing):
        async def accept(self, *given: Any, **more: Any) -> Entry:
            try:
                return await super().accept(*given, **more)
            finally:
                self.accepts = 0

    failing = Once()
    async with surroundings(failing) as world, world.client() as wave:
        failing.accepts = 1
        done = await wave.submit(KLING, INPUT, key="k")
        assert done.task_id == world.sim.tasks[0].id
        assert await world.state("k") is State.ACCEPTED
    assert "ledger.failed key=k" in caplog.text


async def test_a_ledger_that_stays_away_after(caplog: pytest.LogCaptureFixture) -> None:
    """F32: the caller gets the task's id all the same, and the log; the ledger finds it again."""
    failing = Failing()
    async with surroundings(failing) as world, world.client(timeout=0.5) as wave:
        failing.accepts = 1
        done = await wave.submit(KLING, {**INPUT, "prompt": PROMPT}, key="k")
        assert done.task_id == world.sim.tasks[0].id
        assert await world.state("k") is State.INTENDED
        failing.accepts = 0
        assert (await done.result()).id == done.task_id
        assert world.posts == 1
    assert f"task_id={done.task_id}" in caplog.text
    assert PROMPT not in caplog.text


@pytest.mark.parametrize(
    ("answer", "kind", "failure"),
    [
        (refusing(400), ApiError, "rejects"),
        (refusing(500), SubmissionUnknown, "doubts"),
    ],
)
async def test_a_ledger_that_is_away_at_an_error(
    answer: httpx.Response, kind: type[SubmitterError], failure: str
) -> None:
    """The caller hears what the API said, not what the ledger could not write."""
    failing = Failing()
    async with surroundings(failing) as world, world.client() as wave:
        setattr(failing, failure, 1)
        world.wire.meddle = answering(KLING, answer)
        with pytest.raises(kind):
            await wave.submit(KLING, INPUT, key="k")
        assert await world.state("k") is State.INTENDED


async def test_an_end_that_is_known_at_once(world: World) -> None:
    """F28: a webhook that was faster than the answer is not forgotten, nor overwritten."""

    async def meddle(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(KLING):
            return None
        prediction = Prediction("t", "completed", outputs=("https://o.example/1",))
        await world.ledger.finish([Result(prediction, "k", delivered=True)], 1.0)
        return CREATED

    world.wire.meddle = meddle
    async with world.client() as wave:
        done = await wave.submit(KLING, INPUT, key="k")
        result = await done.result()
    assert (done.task_id, result.outputs) == ("t", ("https://o.example/1",))
    assert (await world.entry("k")).delivered
    assert world.questions == 0


async def test_an_answer_that_is_the_result(world: World) -> None:
    """A task that has ended by the answer to its submit is finished."""
    done = {"id": "t", "status": "completed", "outputs": []}
    world.wire.meddle = answering(KLING, refusing(200, {"code": 200, "data": done}))
    async with world.client() as wave:
        assert (await wave.run(KLING, INPUT, key="k")).succeeded
    assert await world.state("k") is State.FINISHED
    assert world.questions == 0


# -- files and money -------------------------------------------------------------------------------


@BOTH_LEDGERS
async def test_files_are_uploaded_once(world: World, tmp_path: Path) -> None:
    """Path, text and bytes with one content are one upload, for many submits at once too."""
    picture = tmp_path / "my private name.png"
    picture.write_bytes(png())
    async with world.client() as wave:
        await asyncio.gather(
            *(
                wave.submit(KLING, prompt=f"{number}", image=image)
                for number, image in enumerate([picture, str(picture), png()] * 3)
            )
        )
        assert world.sim.calls["upload"] == world.sim.calls["put"] == 1
        await wave.submit(KLING, prompt="other", image=png(400))
    assert world.sim.calls["upload"] == 2
    images = {str(task.input["image"]) for task in world.sim.tasks}
    assert len(images) == 2
    assert all(image.startswith(world.sim.url) for image in images)
    assert not any(b"private" in request.content for request in world.wire.sent)


async def test_files_are_uploaded_again_after_a_day(world: World) -> None:
    """The API keeps uploads for some days; after one they are not relied upon."""
    clock = Clock(NOW)
    async with world.client(clock=clock) as wave:
        for hours in (0, 23, 25):
            clock.now += hours * 3600
            await wave.submit(KLING, prompt="x", image=png())
    assert world.sim.calls["upload"] == 2


async def test_files_are_uploaded_to_each_api(world: World) -> None:
    """What a simulated API was given, the real one cannot reach."""
    async with Simulator(speed=2000.0) as other:
        for url in (world.sim.url, other.url):
            async with world.client(base_url=url) as wave:
                await wave.submit(KLING, prompt="x", image=png())
        assert str(other.tasks[0].input["image"]).startswith(other.url)


async def test_a_key_goes_by_the_files_content(world: World, tmp_path: Path) -> None:
    """The same picture from elsewhere is the same input; another picture is not."""
    for name, side in (("a.png", 320), ("b.png", 320), ("c.png", 400)):
        (tmp_path / name).write_bytes(png(side))
    async with world.client() as wave:
        await wave.submit(KLING, prompt="x", image=tmp_path / "a.png", key="k")
        await wave.submit(KLING, prompt="x", image=tmp_path / "b.png", key="k")
        with pytest.raises(BadInput, match="choose a new one"):
            await wave.submit(KLING, prompt="x", image=tmp_path / "c.png", key="k")
    assert world.posts == 1


async def test_a_file_that_cannot_be_sent(world: World, tmp_path: Path) -> None:
    """What is wrong with a file is found before anything is uploaded or paid for."""
    (tmp_path / "small.png").write_bytes(png(64))
    async with world.client() as wave:
        with pytest.raises(BadInput, match="image"):
            await wave.submit(KLING, prompt="x", image=tmp_path / "small.png")
        with pytest.raises(BadInput, match="image"):
            await wave.submit(KLING, prompt="x", image="no-such-file.png")
    assert world.wire.sent == []


async def test_a_cap_refuses(world: World) -> None:
    """Above the cap nothing is sent; the error has both numbers."""
    async with world.client() as wave:
        with pytest.raises(OverBudget) as caught:
            await wave.submit(KLING, INPUT, max_cost=0.24, key="k")
        assert (caught.value.price, caught.value.max_cost) == (0.25, 0.24)
        assert await wave.find(["k"]) == {}
        done = await wave.submit(KLING, INPUT, max_cost=0.25, key="k")
    assert (await world.entry("k")).cost == 0.25
    assert done.task_id == world.sim.tasks[0].id
    assert world.sim.calls["price"] == 2


async def test_a_price_that_is_known(world: World) -> None:
    """Nobody is asked for it; the cap holds all the same."""
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, cost=0.1, max_cost=0.2, key="k")
        with pytest.raises(OverBudget):
            await wave.submit(KLING, INPUT, cost=0.3, max_cost=0.2)
        await wave.submit(KLING, INPUT)
    assert (await world.entry("k")).cost == 0.1
    assert world.sim.calls["price"] == 0


# -- limits and logs -------------------------------------------------------------------------------


async def test_places_that_nobody_waits_for_are_freed(world: World) -> None:
    """Nobody waits for what a killed process has submitted: it is asked for when overdue."""
    async with asyncio.timeout(60), world.client(limits=Limits(in_flight=1)) as wave:
        await wave.submit(KLING, INPUT)
        await wave.submit(KLING, INPUT)
    assert world.posts == 2


async def test_limits_of_the_client(world: World) -> None:
    """Tasks at once: the next goes out when one has ended."""
    async with world.client(limits=Limits(in_flight=2)) as wave:
        submitting = [asyncio.create_task(wave.submit(KLING, INPUT)) for _ in range(5)]
        await until(lambda: sum(task.done() for task in submitting) == 2)
        assert world.posts == 2
        async for prediction in wave.stream():
            assert prediction.succeeded
        await asyncio.gather(*submitting)
    assert world.posts == 5


async def test_logs_and_reprs_hold_no_secrets(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """F16: neither key, token, prompt nor context is in a log line, a repr or an error."""
    caplog.set_level(logging.DEBUG)
    secrets = [PROMPT, "CONTEXT-7"]
    world.spoil("lost-answer")
    async with hooked(world) as wave:
        with pytest.raises(SubmissionUnknown) as caught:
            await wave.submit(KLING, prompt=PROMPT, image=IMAGE, context="CONTEXT-7", key="k")
        shown = f"{wave!r} {caught.value!r} {caught.value}"
        done = await wave.submit(KLING, prompt=PROMPT, image=IMAGE, key="k")
        order = await wave.check(KLING, prompt=PROMPT, image=IMAGE, context="CONTEXT-7")
        shown += f"{done!r} {order!r}"
    secrets.append(sent(world).url.params["webhook"].rpartition("/")[2])
    assert not [secret for secret in secrets if secret in shown + caplog.text]
