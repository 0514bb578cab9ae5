"""Life that jumps ahead, and what it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from submitter.simulator import Simulator
from submitter.simulator.clock import SimClock, Timeline
from submitter.simulator.server import serving
from tests.support.simulator import Asker, data, simulated
from tests.support.waiting import until

DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, so that one simulator serves what changes nothing."""
    return "asyncio"


@pytest.fixture(scope="module")
async def quiet() -> AsyncIterator[Asker]:
    """Asks a simulator that nobody disturbs."""
    async with simulated() as (_, api):
        yield api


@asynccontextmanager
async def receiving(
    faults: str = "", **options: Any
) -> AsyncIterator[tuple[Simulator, Asker, str, list[Request]]]:
    """A simulator at the speed of life, and a receiver of webhooks."""
    came: list[Request] = []

    async def take(request: Request) -> Response:
        came.append(request)
        return Response()

    app = Starlette(routes=[Route("/hook", take, methods=["POST"])])
    async with serving(app) as url, simulated(faults, **options) as (sim, api):
        yield sim, api, f"{url}/hook", came


async def test_what_ends_by_a_jump_sends_its_webhook_at_once() -> None:
    """A minute of life needs no minute; the webhook's time is now, so that it verifies."""
    async with receiving() as (sim, api, hook, came):
        id = await api.submitted(hook)
        await sim.forward(30)
        assert data(await api.result(id))["status"] == "processing"
        await sim.forward(30)
        await until(lambda: bool(came))
        assert data(await api.result(id))["status"] == "completed"
        assert abs(int(came[0].headers["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("faults", ["", "delay", "reorder", "delay,reorder"])
async def test_waits_of_webhooks_are_shortened(faults: str) -> None:
    """Late ones come too: life has passed for them as well."""
    async with receiving(faults) as (sim, api, hook, came):
        await api.submitted(hook)
        async with asyncio.timeout(20):
            while not came:  # One that waits for another begins to wait when it is due.
                await sim.forward(100)
                await asyncio.sleep(0.01)


async def test_retries_come_with_life() -> None:
    """Four attempts at a receiver that is away, without waiting 35 seconds."""
    async with simulated() as (sim, api):
        await api.submitted("http://127.0.0.1:9/hook")
        async with asyncio.timeout(20):
            while len(sim.attempts) < 4:
                await sim.forward(30)
                await asyncio.sleep(0.01)


async def test_the_clock_stays_as_it_is() -> None:
    """What the API says of times holds for whoever asks, however far life is."""
    async with simulated(clock=lambda: 1_772_356_368.25) as (sim, api):
        await api.submitted()
        await sim.forward(DAY)
        await api.submitted()
        created = [item["created_at"] for item in await api.history()]
        assert created == ["2026-03-01T09:12:48.250000000Z"] * 2
        assert [item["status"] for item in await api.history()] == ["created", "completed"]


async def test_predictions_and_outputs_are_gone_after_7_days() -> None:
    """The whole of them, and the bill stays."""
    async with simulated() as (sim, api):
        id = await api.submitted()
        await sim.forward(6.9 * DAY)
        assert (await api.get(f"outputs/{id}.mp4")).status_code == 200
        await sim.forward(0.2 * DAY)
        assert (await api.get(f"outputs/{id}.mp4")).status_code == 404
        assert (await api.result(id)).status_code == 404
        assert await api.history() == []
        assert (await api.get("simulator/bill")).json()["submits"] == 1


async def test_outputs_can_expire_sooner() -> None:
    """`expire` counts from the task's end; one that runs is there, however old it is."""
    async with simulated(expire=5.0) as (sim, api):
        id, late = await api.submitted(), await api.submitted(prompt="[timeout]")
        await sim.forward(42)
        assert (await api.get(f"outputs/{id}.mp4")).status_code == 200
        await sim.forward(8)
        assert (await api.get(f"outputs/{id}.mp4")).status_code == 404
        assert (await api.result(id)).status_code == 404
        assert (await api.result(late)).status_code == 200
        assert [item["id"] for item in await api.history()] == [late]


async def test_life_jumps_by_an_admin_call() -> None:
    """As by Python."""
    async with receiving() as (_, api, hook, came):
        id = await api.submitted(hook)
        answer = await api.post("simulator/forward", json={"seconds": 60.5})
        assert answer.json() == {"seconds": 60.5}
        assert data(await api.result(id))["status"] == "completed"
        await until(lambda: bool(came))


@pytest.mark.parametrize("seconds", [-1, "60", None, True, 1e300, []])
async def test_a_jump_that_is_none_is_refused(quiet: Asker, seconds: Any) -> None:
    """400 says what was expected, and nothing has moved."""
    id = await quiet.submitted()
    answer = await quiet.post("simulator/forward", json={"seconds": seconds})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("seconds: must be a number")
    assert data(await quiet.result(id))["status"] == "created"


async def test_before_its_start_there_is_no_life() -> None:
    """A mistake in a test is told as one."""
    with pytest.raises(RuntimeError, match="async with"):
        await Simulator().forward(1)


seconds_each = st.floats(0, 1e4)


@given(
    st.lists(st.tuples(seconds_each, seconds_each), max_size=6),
    st.integers(0, 6),
    st.floats(0, 1e5),
    st.sampled_from((1.0, 8.0, 0.5)),
)
def test_life_has_come_as_far_as_asked_and_not_before(
    steps: list[tuple[float, float]], start: int, seconds: float, speed: float
) -> None:
    """Whatever jumps there are, before the moment and after it."""
    timeline, now, later = Timeline(speed), 0.0, list[tuple[float, float]]()
    moment = timeline.moment(now)
    for place, (wait, jump) in enumerate(steps):
        now += wait
        if place == start:
            moment, later = timeline.moment(now), []
        timeline.forward(jump, now)
        later.append((now, jump))

    def lived(at: float) -> float:
        return (at - moment.at) * speed + sum(jump for when, jump in later if when <= at)

    found = timeline.after(moment, seconds)
    assert found >= moment.at
    assert lived(found + 1e-6) >= seconds - 1e-3
    assert found == moment.at or lived(found - 1e-6) <= seconds + 1e-3


async def test_a_pace_that_has_stopped_waits_for_nothing() -> None:
    """Waits that stand end, and later ones do not begin; a wait that is cancelled leaves none."""
    pace = SimClock(Timeline(), time.time)
    waits = [asyncio.create_task(pace.sleep(1e6)) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    pace.stop()
    async with asyncio.timeout(20):
        await asyncio.gather(*waits[1:])
        await asyncio.wait(waits)
        await pace.sleep(1e6)
    assert pace._waits == {}
