"""The whole API against the simulator, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from submitter.api.client import ApiClient
from submitter.errors import AuthFailed, NotFound
from submitter.simulator import Simulator
from submitter.simulator.media import png
from tests.support.clocks import Clock

pytestmark = pytest.mark.anyio

KLING = "kwaivgi/kling-v2.1-i2v-standard"


@pytest.fixture
def clock() -> Clock:
    return Clock(1_772_356_368.5)


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    async with Simulator(clock=clock, api_key="right") as simulator:
        yield simulator


@pytest.fixture
async def calls(simulator: Simulator, clock: Clock) -> AsyncIterator[ApiClient]:
    async with ApiClient("right", simulator.url, clock=clock) as calls:
        yield calls


def input(simulator: Simulator, prompt: str = "waves") -> dict[str, Any]:
    return {"prompt": prompt, "image": simulator.first_frame}


async def test_the_life_of_a_task(calls: ApiClient, simulator: Simulator, clock: Clock) -> None:
    """A task is posted, billed once, found as it ends, and gone when it is deleted."""
    posted = await calls.post(KLING, input(simulator), None, timeout=60)
    assert (posted.status, posted.terminal) == ("created", False)
    before = await calls.balance()
    clock.now += 3600
    done = await calls.result(posted.id)
    assert done.raise_for_status().outputs
    assert [task.id for task in simulator.tasks] == [posted.id]
    await calls.delete(posted.id)
    with pytest.raises(NotFound):
        await calls.result(posted.id)
    assert await calls.balance() == before < 100.0


async def test_history(calls: ApiClient, simulator: Simulator, clock: Clock) -> None:
    """Tasks are found by time and model, newest first, over several pages, with their input."""
    ids = []
    for number in range(5):
        clock.now += 10.0
        posted = await calls.post(KLING, input(simulator, f"wave {number}"), None, timeout=60)
        ids.append(posted.id)
    found = [task async for task in calls.history(page_size=2)]
    assert [task.id for task in found] == ids[::-1]
    assert found[0].input == input(simulator, "wave 4")
    recent = calls.history(model=KLING, created_after=clock.now - 15.0, created_before=clock.now)
    assert [task.id async for task in recent] == [ids[3]]
    assert [task.id async for task in calls.history(status="failed")] == []


async def test_what_is_offered(calls: ApiClient, simulator: Simulator) -> None:
    """Models come with schemas, and ten seconds cost more than five."""
    models = {model.id: model for model in await calls.models()}
    assert models[KLING].schema
    assert models[KLING].base_price
    short = await calls.price(KLING, {**input(simulator), "duration": 5})
    long = await calls.price(KLING, {**input(simulator), "duration": 10})
    assert 0 < short.discounted < long.discounted


async def test_an_upload(calls: ApiClient) -> None:
    """What is put is what models then read, and it goes without the API key."""
    content = png()
    url = await calls.upload(content, filename="first.png", content_type="image/png")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == content


async def test_the_secret(calls: ApiClient, simulator: Simulator) -> None:
    """The secret is the one that webhooks are signed with."""
    assert await calls.webhook_secret() == simulator.secret


async def test_a_wrong_key(simulator: Simulator) -> None:
    """A key that the API does not know is told as such, and nothing is billed."""
    async with ApiClient("wrong", simulator.url) as calls:
        for call in (calls.balance(), calls.post(KLING, {}, None, timeout=60)):
            with pytest.raises(AuthFailed):
                await call
    assert simulator.tasks == []
