"""A genuine delivery with an old time: fetched from the API, refused, or left with its sender.

The API is the simulator, over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from receiver import build
from receiver.api_client import ResultFetcher
from receiver.config import Secret, Settings
from receiver.database import settings_seal
from receiver.errors import ApiUnavailable
from receiver.event import Origin
from receiver.intake import Intake
from receiver.web.app import create_app
from submitter.api.client import ApiClient
from submitter.errors import RateLimited
from submitter.prediction import Prediction
from submitter.simulator import Simulator
from tests.support.asgi import Answer, post

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
OLD = 4000.0
"""Seconds; far outside the window."""


@dataclass
class Around:
    """A receiver, and the API that it asks."""

    sim: Simulator
    parts: build.ReceiverParts
    calls: ApiClient

    async def task(self, *, ended: bool = True) -> str:
        """Submit one without a webhook, and wait for its end."""
        input = {"prompt": "waves", "image": self.sim.first_frame}
        task = await self.calls.post(MODEL, input, None, timeout=20.0)
        async with asyncio.timeout(20):
            while ended and not (await self.calls.result(task.id)).terminal:
                await asyncio.sleep(0.01)
        return task.id

    async def deliver(self, task_id: str, *, token: str = "", age: float = OLD) -> Answer:
        """What the sender posts, dated back."""
        body = json.dumps({"id": task_id, "status": "completed", "model": MODEL, "outputs": []})
        at = time.time() - age
        path = f"/webhooks/wavespeed{token and '/'}{token}"
        return await post(self.parts.app, body.encode(), path, at=at, secret=self.sim.secret)

    @property
    def asked(self) -> int:
        """Questions about a task so far."""
        return self.sim.calls["result"]


def receiver(sim: Simulator, folder: Path, *, key: bool = True) -> build.ReceiverParts:
    settings = Settings(
        directory=folder,
        api_key=Secret("k") if key else None,
        base_url=sim.url,
        wavespeed_secrets=(Secret(sim.secret),),
        reconcile="off",
    )
    return build.build(settings, hooks=())


@pytest.fixture(params=[1000.0])
async def around(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Around]:
    async with Simulator(speed=request.param) as sim, ApiClient("k", sim.url) as calls:
        parts = receiver(sim, tmp_path)
        async with parts.app.router.lifespan_context(parts.app):
            yield Around(sim, parts, calls)


async def test_a_late_webhook_is_made_good_by_the_api(around: Around) -> None:
    """F7: its result is stored as fetched, with the token's context, and answered 202."""
    task_id = await around.task()
    token = settings_seal(around.parts.settings).seal({"job": 7}, model=MODEL, now=time.time())

    answer = await around.deliver(task_id, token=token)

    event_id = f"wavespeed:{task_id}:completed"
    assert (answer.status, answer.json) == (202, {"id": event_id, "duplicate": False})
    event = await around.parts.store.event(event_id)
    assert event is not None
    assert (event.origin, event.context) == (Origin.RECONCILE, {"job": 7})
    assert event.prediction is not None
    assert event.prediction.outputs  # the body that was sent had none
    metrics = around.parts.metrics.render(None, 0.0)
    assert b"wavehook_reconcile_asked_total 1.0" in metrics
    assert b"wavehook_reconcile_found_total 1.0" in metrics


async def test_what_the_inbox_has_is_asked_of_nobody(around: Around) -> None:
    """F5, F7: a replay outside the window is a duplicate, and costs no question."""
    task_id = await around.task()
    await around.deliver(task_id, age=0.0)
    before = around.asked

    answer = await around.deliver(task_id)

    assert (answer.status, answer.json["duplicate"]) == (200, True)
    assert around.asked == before


async def test_a_late_webhook_of_the_future_is_no_different(around: Around) -> None:
    """F6, F7: whichever clock is wrong, what the API says is true."""
    assert (await around.deliver(await around.task(), age=-OLD)).status == 202


@pytest.mark.parametrize("around", [1.0], indirect=True)
async def test_a_task_that_has_not_ended_is_not_believed_to_have(around: Around) -> None:
    """F5: the body says completed, the API does not."""
    answer = await around.deliver(await around.task(ended=False))

    assert answer.status == 401
    assert await around.parts.store.events() == []


@pytest.mark.parametrize("task_id", ["0" * 32, "../balance", "a b"])
async def test_a_task_that_the_api_does_not_know(around: Around, task_id: str) -> None:
    """F5, F36: 401, whatever the id looks like."""
    assert (await around.deliver(task_id)).status == 401


async def test_a_forged_token_costs_no_question(around: Around) -> None:
    """F33: 401 before anybody is asked."""
    task_id = await around.task()
    before = around.asked

    assert (await around.deliver(task_id, token="forged")).status == 401
    assert around.asked == before


async def test_without_a_key_a_late_webhook_is_refused(around: Around, tmp_path: Path) -> None:
    """F5: there is nobody to ask."""
    task_id = await around.task()
    (tmp_path / "other").mkdir()
    around.parts = receiver(around.sim, tmp_path / "other", key=False)
    async with around.parts.app.router.lifespan_context(around.parts.app):
        assert (await around.deliver(task_id)).status == 401


async def test_many_late_webhooks_of_one_task_are_one_question(around: Around) -> None:
    """F3, F7: a sender that comes again while the API is asked waits for the same answer."""
    task_id = await around.task()
    before = around.asked

    answers = await asyncio.gather(*(around.deliver(task_id) for _ in range(20)))

    assert sorted(answer.status for answer in answers) == [200] * 19 + [202]
    assert around.asked == before + 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://[::1"], ids=["away", "no URL"])
async def test_an_api_that_is_away_leaves_the_webhook_with_its_sender(
    around: Around, address: str
) -> None:
    """F7: 503 with Retry-After, within the time limit; a signed event is never lost."""
    task_id = await around.task()
    asking = ResultFetcher(lambda: ApiClient("k", address), timeout=0.05)
    intake = Intake(around.parts.intake.sources, [], around.parts.store, fetch=asking.fetch)
    around.parts = build.ReceiverParts(
        **{
            **{
                name: getattr(around.parts, name)
                for name in build.ReceiverParts.__dataclass_fields__
            },
            "app": create_app(intake=intake, store=around.parts.store),
        }
    )

    answer = await around.deliver(task_id)

    assert (answer.status, answer.header(b"retry-after")) == (503, b"5")
    assert "API" not in answer.body.decode()
    await asking.stop()


async def test_a_sender_that_leaves_takes_the_answer_from_no_other(around: Around) -> None:
    """F7: the question belongs to all who wait for it."""
    task_id = await around.task()
    asking = ResultFetcher(lambda: ApiClient("k", around.sim.url))
    first = asyncio.ensure_future(asking.fetch(task_id))
    second = asyncio.ensure_future(asking.fetch(task_id))
    await asyncio.sleep(0)
    first.cancel()

    answer = await second

    assert isinstance(answer, Prediction)
    assert answer.terminal
    await asking.stop()


async def test_a_key_that_the_api_refuses_leaves_the_webhook_with_its_sender() -> None:
    """F7: what a person has to put right is no reason to drop a signed event."""
    async with Simulator(api_key="right") as sim:
        asking = ResultFetcher(lambda: ApiClient("wrong", sim.url))
        with pytest.raises(ApiUnavailable, match="WAVESPEED_API_KEY"):
            await asking.fetch("0" * 32)
        await asking.stop()


@pytest.mark.parametrize(("asked", "told"), [(None, 5), (1.0, 5), (7.2, 8), (1e9, 3600)], ids=str)
async def test_the_api_says_when_the_sender_is_to_come_again(
    asked: float | None, told: int
) -> None:
    """F27: within reason, because a sender gives up after a few tries."""

    class Busy(ApiClient):
        async def result(self, task_id: str) -> Prediction:
            raise RateLimited(retry_after=asked)

    asking = ResultFetcher(lambda: Busy("k"))
    with pytest.raises(ApiUnavailable) as raised:
        await asking.fetch("t")
    await asking.stop()

    assert raised.value.retry_after == told


def test_each_event_loop_has_a_connection_of_its_own() -> None:
    """F41: on some platforms every request has an event loop, and dies with it."""
    asking = ResultFetcher(lambda: ApiClient("k", "http://127.0.0.1:9"), timeout=0.05)

    for _ in range(2):
        with pytest.raises(ApiUnavailable):
            asyncio.run(asking.fetch("0" * 32))

    asyncio.run(asking.stop())


async def test_a_stop_ends_the_questions_under_way(around: Around) -> None:
    """F40: who still waits is told to come again; the next question connects anew."""
    task_id = await around.task()
    asking = ResultFetcher(lambda: ApiClient("k", around.sim.url))
    asked = asyncio.ensure_future(asking.fetch(task_id))
    await asyncio.sleep(0)

    await asking.stop()

    with pytest.raises(ApiUnavailable, match="shutting down"):
        await asked
    assert await asking.fetch(task_id) is not None
    await asking.stop()
