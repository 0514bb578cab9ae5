"""Faults of calls, as a client over real HTTP meets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from submitter.client import WaveSpeed
from submitter.ledger.memory import MemoryLedger
from submitter.simulator.server import NoResponse, serving
from tests.support.simulator import INPUT, MODEL, Asker, data, simulated

CALLS = (
    ("POST", "predictions", {"page": 1, "page_size": 1}),
    ("POST", "predictions/delete", {"ids": ["x"]}),
    ("GET", "predictions/x/result", None),
    ("GET", "models", None),
    ("POST", "model/price", {"model_id": MODEL, "inputs": INPUT}),
    ("GET", "balance", None),
    ("POST", "media/uploads", {"filename": "a.png", "size": 1}),
    ("GET", "webhook/secret", None),
)


@asynccontextmanager
async def losing(protocol: type[asyncio.Protocol]) -> AsyncIterator[httpx.AsyncClient]:
    """An app that loses a connection in one way or the other, under one of uvicorn's protocols."""

    async def lose(request: Request) -> Response:
        if request.method == "POST":
            await request.body()
        return NoResponse(reset=request.path_params["how"] == "reset")

    async def fine(request: Request) -> Response:
        return PlainTextResponse("fine")

    app = Starlette(routes=[Route("/lose/{how}", lose, methods=["POST", "GET"]), Route("/", fine)])
    async with (
        serving(app, protocol=protocol) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
@pytest.mark.parametrize(
    ("how", "error"), [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError)]
)
async def test_a_connection_ends_without_an_answer(
    protocol: type[asyncio.Protocol], how: str, error: type[Exception]
) -> None:
    """In order or with RST, under each protocol; the server goes on as if nothing had been."""
    async with losing(protocol) as client:
        assert (await client.get("/")).text == "fine"
        for _ in range(3):
            with pytest.raises(error):
                await client.post(f"/lose/{how}", content=b"x" * 100_000)
            with pytest.raises(error):
                await client.get(f"/lose/{how}")
            assert (await client.get("/")).text == "fine"


@pytest.mark.parametrize(
    ("fault", "error", "created"),
    [
        ("lost-request", httpx.RemoteProtocolError, 0),
        ("lost-answer", httpx.RemoteProtocolError, 1),
        ("reset", httpx.ReadError, 1),
    ],
)
async def test_a_submit_that_is_lost_has_created_a_task_or_not(
    fault: str, error: type[Exception], created: int
) -> None:
    """F32: the client cannot tell, the bill and the history can."""
    async with simulated(fault) as (sim, api):
        with pytest.raises(error):
            await api.submit()
        assert len(sim.tasks) == created
        assert [item["id"] for item in await api.history()] == [task.id for task in sim.tasks]
        assert (await api.get("simulator/bill")).json()["submits"] == created
        assert data(await api.get("api/v3/balance"))["balance"] == 100 - 0.25 * created


@pytest.mark.parametrize("fault", ["lost-answer", "reset"])
async def test_a_submit_that_is_refused_is_answered_all_the_same(fault: str) -> None:
    """Nothing was created that could be hidden: the client hears what is wrong."""
    async with simulated(fault) as (sim, api):
        assert (await api.submit(duration=7)).status_code == 400
        assert (await api.post("api/v3/x/y", json=INPUT)).status_code == 404
        assert sim.tasks == []


async def test_rate_limit_names_a_wait_every_second_time() -> None:
    """10 seconds of life, in whole seconds by the clock; nothing is created."""
    async with simulated("rate-limit", speed=5.0) as (sim, api):
        answers = [await api.submit() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [429] * 4
        assert [answer.headers.get("retry-after") for answer in answers] == ["2", None, "2", None]
        assert sim.tasks == []


@pytest.mark.parametrize(
    ("fault", "status"), [("rate-limit", 429), ("error-500", 500), ("error-502", 502)]
)
async def test_every_call_of_the_api_can_be_refused(fault: str, status: int) -> None:
    """Reads and deletes too; the look behind the scenes and the files go on."""
    async with simulated(fault) as (sim, api):
        for verb, path, body in CALLS:
            answer = await api.request(verb, f"api/v3/{path}", json=body)
            assert answer.status_code == status, path
        assert (await api.get(sim.first_frame)).status_code == 200
        assert (await api.get("simulator/calls")).json()["history"] == 1


async def test_errors_have_all_the_apis_shapes_by_turns() -> None:
    """Four kinds of JSON, and none."""
    async with simulated("error-500") as (_, api):
        answers = [await api.get("api/v3/balance") for _ in range(10)]
    shapes = [
        sorted(answer.json()) if "json" in answer.headers["content-type"] else answer.text
        for answer in answers
    ]
    assert shapes[:5] == [
        ["code", "message"],
        ["error_code", "message"],
        ["error"],
        ["detail"],
        "Internal server error",
    ]
    assert shapes[5:] == shapes[:5]
    assert answers[1].json()["error_code"] == "internal_error"


async def test_a_bad_gateway_answers_with_html() -> None:
    """Which is no JSON at all."""
    async with simulated("error-502") as (_, api):
        answer = await api.get("api/v3/balance")
        assert answer.headers["content-type"].startswith("text/html")
        assert "<h1>" in answer.text


@pytest.mark.parametrize("fault", ["error-500", "error-502"])
async def test_every_second_submit_with_a_server_error_has_created_its_task(fault: str) -> None:
    """F32: the status tells nothing about the bill."""
    async with simulated(fault) as (sim, api):
        created = []
        for _ in range(4):
            before = len(sim.tasks)
            assert (await api.submit()).status_code == int(fault[-3:])
            created.append(len(sim.tasks) - before)
        assert created == [0, 1, 0, 1]


async def test_slow_answer_is_for_reads_too() -> None:
    """The answer waits for life, and comes at once when life jumps ahead."""
    async with simulated("slow-answer", speed=1.0) as (sim, api):
        asked = asyncio.create_task(api.get("api/v3/balance"))
        async with asyncio.timeout(20):
            while not sim.calls["balance"]:
                await asyncio.sleep(0.002)
        assert not asked.done()
        async with asyncio.timeout(15):
            while not asked.done():  # The call is counted before it begins to wait.
                await sim.forward(20)
                await asyncio.sleep(0.01)
        assert asked.result().status_code == 200


async def fates(api: Asker) -> list[object]:
    found: list[object] = []
    for _ in range(25):
        try:
            found.append((await api.submit()).status_code)
        except httpx.TransportError as error:
            found.append(type(error))
        found.append((await api.get("api/v3/balance")).status_code)
    return found


async def test_the_same_seed_gives_the_same_fates_to_calls() -> None:
    """Decided by seed, fault and number; another seed is another run."""
    words = "all=0.2,slow-answer=0,early-webhook=0"
    runs = []
    for seed in (3, 3, 4):
        async with simulated(words, seed=seed) as (_, api):
            runs.append(await fates(api))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert {200, 429, 500, 502, httpx.ReadError, httpx.RemoteProtocolError} == set(runs[0])


async def test_with_every_fault_on_a_submit_gets_through_in_the_end() -> None:
    """`all` is a bad day, no wall."""
    async with simulated("all", speed=2000.0) as (sim, api):
        for _ in range(20):
            async with asyncio.timeout(20):
                while True:
                    try:
                        answer = await api.submit()
                    except httpx.TransportError:
                        continue
                    if answer.status_code == 200:
                        break
        assert len(sim.tasks) >= 20


async def test_the_projects_own_client_takes_the_errors_of_reads() -> None:
    """NoResponse in half of the calls, asked again until it is there."""
    async with (
        simulated("rate-limit=0.2,error-500=0.2,error-502=0.2", speed=2000.0) as (sim, _),
        WaveSpeed("k", sim.url, ledger=MemoryLedger()) as wave,
    ):
        assert await wave.webhook_secret() == sim.secret


async def test_faults_can_be_exchanged_while_it_runs() -> None:
    """By Python as by HTTP; the seed stays, and bad words are answered with the known ones."""
    async with simulated(seed=9) as (sim, api):
        answer = await api.post("simulator/faults", json={"faults": "rate-limit"})
        assert answer.json() == {"faults": {"rate-limit": 1.0}, "seed": 9}
        assert (await api.submit()).status_code == 429
        sim.set_faults(type(sim.faults)())
        assert (await api.submit()).status_code == 200
        for body, words in (
            ({"faults": "dupe"}, "Use all, or some of"),
            ({"faults": "drop=2"}, "from 0 to 1"),
            ({"faults": None}, "must be a string"),
            ({}, "must be a string"),
            ([], "must be a JSON object"),
        ):
            refused = await api.post("simulator/faults", json=body)
            assert refused.status_code == 400
            assert words in refused.json()["message"]
        assert sim.faults.rates == {}
