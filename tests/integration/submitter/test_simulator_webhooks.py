"""The simulator's webhooks, as a real HTTP receiver sees them."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from submitter.simulator import Faults, Simulator
from submitter.simulator.server import serving
from submitter.simulator.webhook_sender import sign
from tests.support import needed
from tests.support.paths import VALID_SIGNATURES
from tests.support.waiting import until

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
INPUT = {"prompt": "a lighthouse at dusk", "image": "https://example.com/first.png"}
FAST = 2000.0


@dataclass
class Sink:
    """Takes webhooks over real HTTP, and answers with the statuses it was given, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: Request) -> Response:
        async with self.came:
            self.requests.append((dict(request.headers), await request.body()))
            self.came.notify_all()
        return Response(status_code=self.statuses.pop(0) if self.statuses else 200)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self.came:
            await self.came.wait_for(lambda: len(self.requests) >= count)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, so that one receiver serves all its tests."""
    return "asyncio"


@pytest.fixture(scope="module")
async def sinks() -> AsyncIterator[dict[str, Sink]]:
    """The sinks by the token in their URL; the base URL is under the empty token."""
    found: dict[str, Sink] = {}

    async def take(request: Request) -> Response:
        return await found[request.path_params["token"]].take(request)

    app = Starlette(routes=[Route("/hook/{token}", take, methods=["POST"])])
    async with serving(app) as url:
        found[""] = Sink(url)
        yield found


@dataclass
class Rig:
    """A simulator, a sink, and a client of both."""

    sim: Simulator
    sink: Sink
    api: httpx.AsyncClient

    async def submit(self, **more: Any) -> str:
        answer = await self.api.post(
            f"/api/v3/{MODEL}", params={"webhook": self.sink.url}, json={**INPUT, **more}
        )
        assert answer.status_code == 200, answer.text
        id: str = answer.json()["data"]["id"]
        return id

    async def attempts(self, count: int) -> list[dict[str, Any]]:
        """The simulator's log, once it has so many lines."""
        await until(lambda: len(self.sim.attempts) >= count)
        log: list[dict[str, Any]] = (await self.api.get("/simulator/webhooks")).json()
        return log


NewRig = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def rig(sinks: dict[str, Sink]) -> NewRig:
    @asynccontextmanager
    async def start(faults: str = "", speed: float = FAST, **options: Any) -> AsyncIterator[Rig]:
        token = f"t0ken{len(sinks)}"
        sink = sinks[token] = Sink(f"{sinks[''].url}/hook/{token}")
        async with (
            httpx.AsyncClient(headers={"Authorization": "Bearer k"}) as api,
            Simulator(speed=speed, faults=Faults.parse(faults, seed=1), **options) as sim,
        ):
            api.base_url = httpx.URL(sim.url)
            yield Rig(sim, sink, api)

    return start


def signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether OpenSSL comes to the same signature, after the documented shell recipe."""
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = secret.removeprefix("whsec_")
    needed.programs("openssl")
    command = ["openssl", "dgst", "-sha256", "-hmac", key]
    made = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    return headers["webhook-signature"] == "v3," + made.decode().split()[-1]


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def age(headers: dict[str, str]) -> float:
    return time.time() - int(headers["webhook-timestamp"])


@pytest.mark.parametrize("vector", VALID_SIGNATURES, ids=lambda vector: vector["name"])
def test_signatures_are_those_of_openssl(vector: dict[str, str]) -> None:
    """The sender's own code comes to the signature of every vector."""
    body = base64.b64decode(vector["body_base64"])
    made = sign(vector["secret"], vector["webhook_id"], int(vector["timestamp"]), body)
    assert made == vector["signature"]


async def test_webhooks_come_signed_and_in_both_shapes(rig: NewRig) -> None:
    """Without faults each task has one webhook, of now, which OpenSSL confirms."""
    async with rig() as r:
        ids = [await r.submit(), await r.submit()]
        await r.sink.until(2)
        assert sorted(r.sink.ids) == sorted(ids)
        for headers, body in r.sink.requests:
            assert signed(headers, body, r.sim.secret)
            assert headers["content-type"] == "application/json"
            assert abs(age(headers)) < 5
        bodies = {json.loads(body)["id"]: json.loads(body) for _, body in r.sink.requests}
        first, second = (bodies[id] for id in ids)
        assert first["input"] == INPUT
        assert "executionTime" not in first
        assert second["executionTime"] == 47000
        assert "input" not in second
        assert first["status"] == second["status"] == "completed"
        video = await r.api.get(first["outputs"][0])
        assert video.content[4:8] == b"ftyp"


async def test_a_failed_task_has_a_webhook_too(rig: NewRig) -> None:
    """Its body says failed, with code and error."""
    async with rig() as r:
        await r.submit(prompt="[fail]")
        await r.sink.until(1)
        body = json.loads(r.sink.requests[0][1])
        assert (body["status"], body["code"], body["outputs"]) == ("failed", 1405, [])


async def test_a_task_without_webhook_sends_none(rig: NewRig) -> None:
    """The result can be asked for all the same."""
    async with rig() as r:
        answer = await r.api.post(f"/api/v3/{MODEL}", json=INPUT)
        url = answer.json()["data"]["urls"]["get"]
        await until(lambda: time.time() >= r.sim.tasks[0].ended_at)
        assert (await r.api.get(url)).json()["data"]["status"] == "completed"
        assert r.sim.attempts == []


async def test_a_refused_webhook_is_retried_three_times_as_it_was(rig: NewRig) -> None:
    """Four attempts at most, also after 4xx, with the same bytes, time and signature."""
    async with rig() as r:
        r.sink.statuses = [503, 401, 500, 404, 500]
        await r.submit()
        await r.sink.until(4)
        log = await r.attempts(4)
        await asyncio.sleep(60 / FAST)
        assert len(r.sink.requests) == 4
        assert all(request == r.sink.requests[0] for request in r.sink.requests)
        assert [line["status"] for line in log] == [503, 401, 500, 404]
        assert [line["number"] for line in log] == [1, 2, 3, 4]
        waits = [later["at"] - line["at"] for line, later in pairwise(log)]
        assert waits[0] >= 5 / FAST
        assert waits[2] >= 20 / FAST


async def test_an_accepted_webhook_is_not_retried(rig: NewRig) -> None:
    """After the first 2xx it is over; the log shows no token of the URL."""
    async with rig() as r:
        r.sink.statuses = [500, 204]
        await r.submit()
        await r.sink.until(2)
        log = await r.attempts(2)
        assert [line["status"] for line in log] == [500, 204]
        assert "t0ken" not in json.dumps(log)
        assert log[0]["to"] == r.sink.url.partition("/hook/")[0]


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "https://" + "a" * 64 + ".invalid"])
async def test_a_receiver_that_cannot_be_reached_is_tried_again(rig: NewRig, host: str) -> None:
    """The log says why there was no answer."""
    async with rig() as r:
        r.sink.url = host
        await r.submit()
        log = await r.attempts(4)
        assert all(line["status"] is None and line["error"] for line in log)


async def test_duplicate_sends_an_accepted_webhook_again(rig: NewRig) -> None:
    """F3: the same bytes, twice."""
    async with rig("duplicate") as r:
        await r.submit()
        await r.sink.until(2)
        log = await r.attempts(2)
        assert r.sink.requests[0] == r.sink.requests[1]
        assert [line["faults"] for line in log] == [[], ["duplicate"]]


async def test_drop_sends_nothing(rig: NewRig) -> None:
    """F29: the log knows, the receiver does not."""
    async with rig("drop") as r:
        id = await r.submit()
        log = await r.attempts(1)
        assert (log[0]["task"], log[0]["number"], log[0]["faults"]) == (id, 0, ["drop"])
        assert r.sink.requests == []


async def test_delay_sends_late(rig: NewRig) -> None:
    """30 seconds of life after the end of the task."""
    async with rig("delay", speed=200.0) as r:
        await r.submit()
        log = await r.attempts(1)
        assert log[0]["at"] - r.sim.tasks[0].ended_at >= 30 / 200
        assert log[0]["faults"] == ["delay"]


async def test_reorder_lets_another_webhook_go_first(rig: NewRig) -> None:
    """The webhook of a task that ended first arrives second."""
    async with rig("reorder", speed=200.0) as r:
        ids = [await r.submit(), await r.submit()]
        assert r.sim.tasks[0].ended_at < r.sim.tasks[1].ended_at
        await r.sink.until(2)
        assert r.sink.ids == ids[::-1]


async def test_reorder_does_not_wait_forever(rig: NewRig) -> None:
    """Where no other webhook comes by, it goes after 30 seconds of life."""
    async with rig("reorder") as r:
        await r.submit()
        await r.sink.until(1)
        log = await r.attempts(1)
        assert log[0]["at"] - r.sim.tasks[0].ended_at >= 30 / FAST


async def test_bad_signature_is_put_right_by_the_retry(rig: NewRig) -> None:
    """F13: the first attempt does not verify, the second does."""
    async with rig("bad-signature") as r:
        r.sink.statuses = [401]
        await r.submit()
        await r.sink.until(2)
        verdicts = [signed(*request, r.sim.secret) for request in r.sink.requests]
        assert verdicts == [False, True]
        assert (await r.attempts(2))[0]["faults"] == ["bad-signature"]


async def test_stale_carries_an_old_time_rightly_signed(rig: NewRig) -> None:
    """F7: outside the receiver's window, and genuine."""
    async with rig("stale") as r:
        await r.submit()
        await r.sink.until(1)
        headers, body = r.sink.requests[0]
        assert 590 < age(headers) < 620
        assert signed(headers, body, r.sim.secret)


async def test_slow_answer_keeps_the_submitter_waiting(rig: NewRig) -> None:
    """The task exists, and is billed, long before the answer comes."""
    async with rig("slow-answer", speed=100.0) as r:
        started = time.monotonic()
        submit = asyncio.create_task(r.submit())
        await until(lambda: bool(r.sim.tasks))
        assert not submit.done()
        assert await submit == r.sim.tasks[0].id
        assert time.monotonic() - started >= 20 / 100


async def test_early_webhook_comes_before_the_submits_answer(rig: NewRig) -> None:
    """F28: the receiver has the result when the submitter learns the task's id."""
    async with rig("early-webhook,delay", speed=1.0) as r:
        id = await r.submit()
        assert r.sink.ids == [id]
        assert json.loads(r.sink.requests[0][1])["status"] == "completed"
        assert (await r.attempts(1))[0]["faults"] == ["delay", "early-webhook"]


async def test_a_webhook_can_have_the_odder_shapes(rig: NewRig) -> None:
    """Outputs as objects, no flags, or hardly anything; the log says what was odd on purpose."""
    async with rig("null-nsfw,object-outputs,unknown-status") as r:
        await r.submit()
        await r.sink.until(1)
        body = json.loads(r.sink.requests[0][1])
        assert (body["status"], body["has_nsfw_contents"]) == ("completed", None)
        assert [list(output) for output in body["outputs"]] == [["url"]]
        assert (await r.attempts(1))[0]["faults"] == ["null-nsfw", "object-outputs"]
    async with rig("missing-fields") as r:
        await r.submit()
        await r.sink.until(1)
        assert set(json.loads(r.sink.requests[0][1])) == {"id", "status", "outputs"}


async def test_the_secret_and_the_key_can_be_given(rig: NewRig) -> None:
    """A receiver that is set up already can be tried."""
    async with rig(secret="whsec_mine", api_key="k") as r:
        assert r.sim.secret == "whsec_mine"
        await r.submit()
        await r.sink.until(1)
        assert signed(*r.sink.requests[0], "whsec_mine")
        refused = await r.api.get("/api/v3/balance", headers={"Authorization": "Bearer other"})
        assert refused.status_code == 401


async def test_a_stop_leaves_nothing_behind(rig: NewRig) -> None:
    """F45: with a webhook on its way and a submit unanswered, no task and no socket stays."""
    before = asyncio.all_tasks()
    async with rig("slow-answer", speed=1.0) as r:
        waiting = asyncio.create_task(r.submit())
        await until(lambda: bool(r.sim.tasks))
        started = time.monotonic()
        await r.sim.__aexit__(None, None, None)
        assert time.monotonic() - started < 3
        assert await waiting == r.sim.tasks[0].id
        with pytest.raises(httpx.ConnectError):
            await r.api.get("/simulator/bill")
    assert asyncio.all_tasks() == before


async def test_starts_and_stops_hold_no_files() -> None:
    """F45: after six starts and stops as many descriptors are open as after one."""
    counts = []
    for _ in range(6):
        async with Simulator() as sim, httpx.AsyncClient() as client:
            await client.get(sim.first_frame)
        counts.append(open_files())
    assert counts[-1] <= counts[0]


async def test_before_its_start_a_simulator_has_nothing() -> None:
    """And a port that is taken is an ordinary error."""
    async with Simulator() as sim:
        port = int(sim.url.rpartition(":")[2])
        second = Simulator(port=port)
        assert (second.tasks, second.attempts, second.url) == ([], [], "")
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
async def test_the_url_is_one_that_can_be_called(host: str, shown: str) -> None:
    """Any address is shown as this machine's; IPv6 stands in brackets."""
    try:
        async with Simulator(host=host) as sim, httpx.AsyncClient() as client:
            assert sim.url.startswith(shown)
            assert (await client.get(sim.first_frame)).status_code == 200
    except OSError as error:
        if ":" not in host:
            raise
        pytest.skip(f"no IPv6 here: {error}")


async def test_a_broken_delivery_is_reported(rig: NewRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the background is a log event, not silence."""

    def broken(*_: object) -> Callable[..., bytes]:
        raise RuntimeError("bug")

    monkeypatch.setattr("submitter.simulator.response_bodies.webhook", broken)
    with capture_logs() as logs:
        async with rig() as r:
            await r.submit()
            await until(lambda: bool(logs))
    assert [line["event"] for line in logs] == ["simulator.webhook_failed"]
