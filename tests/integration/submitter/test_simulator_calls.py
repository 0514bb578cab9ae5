"""The calls beside submit and result, over real HTTP: delete, price, history, and their count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from submitter.simulator.faults import CallKind
from tests.support.simulator import INPUT, MODEL, Asker, data, simulated


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, so that one simulator serves what changes nothing."""
    return "asyncio"


@pytest.fixture(scope="module")
async def quiet() -> AsyncIterator[Asker]:
    """Asks a simulator that nobody disturbs."""
    async with simulated() as (_, api):
        yield api


async def test_a_deleted_task_is_gone_and_stays_billed() -> None:
    """404, no history, no output; other tasks stay, and a second delete changes nothing."""
    async with simulated(speed=2000.0) as (sim, api):
        gone, kept = await api.submitted(), await api.submitted()
        await sim.forward(100)
        for _ in range(2):
            answer = await api.post("api/v3/predictions/delete", json={"ids": [gone, "nobody"]})
            assert answer.json()["code"] == 200
        assert (await api.result(gone)).status_code == 404
        assert (await api.get(f"outputs/{gone}.mp4")).status_code == 404
        assert [item["id"] for item in await api.history()] == [kept]
        bill = (await api.get("simulator/bill")).json()
        assert [task["id"] for task in bill["tasks"]] == [gone, kept]
        assert bill["cost"] == 0.5


@pytest.mark.parametrize("ids", [None, [], "x", [1], {}])
async def test_a_delete_without_ids_is_refused(quiet: Asker, ids: Any) -> None:
    """400 names the field."""
    answer = await quiet.post("api/v3/predictions/delete", json={"ids": ids})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("ids")


@pytest.mark.parametrize(("more", "price"), [({}, 0.25), ({"duration": 10}, 0.5)])
async def test_a_price_can_be_asked_for_free(more: dict[str, Any], price: float) -> None:
    """It is what the submit then costs."""
    async with simulated() as (sim, api):
        query = {"model_id": MODEL, "inputs": {**INPUT, **more}}
        answer = data(await api.post("api/v3/model/price", json=query))
        assert answer == {"price": price, "discounted_price": price}
        assert sim.tasks == []
        await api.submitted(**more)
        assert sim.tasks[0].cost == price


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"model_id": "x/y", "inputs": {}}, 404),
        ({"model_id": MODEL}, 400),
        ({"model_id": MODEL, "inputs": []}, 400),
        ({"model_id": "", "inputs": {}}, 400),
        ({"inputs": {}}, 400),
        ([], 400),
    ],
)
async def test_a_wrong_question_for_a_price_is_refused(
    quiet: Asker, query: Any, status: int
) -> None:
    """An unknown model is not found."""
    assert (await quiet.post("api/v3/model/price", json=query)).status_code == status


async def test_calls_are_counted_by_kind() -> None:
    """Refused ones too; what is no call of the API is none."""
    async with simulated() as (sim, api):
        id = await api.submitted()
        await api.submit(duration=7)
        await api.submit(headers=1)
        await api.result(id)
        await api.history()
        await api.post("api/v3/predictions/delete", json={"ids": [id]})
        for path in ("models", "balance", "webhook/secret", "predictions/x"):
            await api.get(f"api/v3/{path}")
        await api.post("api/v3/model/price", json={})
        await api.post("api/v3/media/uploads", json={})
        await api.put("uploads/nobody", content=b"x")
        await api.get("api/v3/balance", headers={"Authorization": ""})
        await api.get("simulator/bill")
        expected = {kind.value: 1 for kind in CallKind} | {"submit": 3, "balance": 2, "result": 2}
        assert sim.calls == expected
        assert (await api.get("simulator/calls")).json() == expected


async def test_the_bill_tells_of_each_task() -> None:
    """Its id, model, cost and time, and whether a webhook was asked for; nothing of its input."""
    async with simulated(clock=lambda: 1000.0) as (_, api):
        ids = [await api.submitted(), await api.submitted("http://127.0.0.1:9/t0ken", duration=10)]
        answer = await api.get("simulator/bill")
        line = {"model": MODEL, "at": 1000.0}
        assert answer.json()["tasks"] == [
            {"id": ids[0], "cost": 0.25, "webhook": False, **line},
            {"id": ids[1], "cost": 0.5, "webhook": True, **line},
        ]
        assert "t0ken" not in answer.text


async def test_a_history_leaves_tasks_out_and_may_have_them_the_next_time() -> None:
    """Inconsistent by query and item; a page is full all the same where there is enough."""
    async with simulated("missing-history=0.5", speed=2000.0) as (sim, api):
        for _ in range(20):
            await api.submitted()
        queries = [{item["id"] for item in await api.history()} for _ in range(6)]
        assert all(0 < len(query) < 20 for query in queries)
        assert len({frozenset(query) for query in queries}) > 1
        assert set.union(*queries) == {task.id for task in sim.tasks}
        assert len(await api.history(page_size=3)) == 3


async def test_a_past_task_may_lack_its_input() -> None:
    """`missing-fields`: by turns the input only, or all that is not needed."""
    async with simulated("missing-fields", speed=2000.0) as (sim, api):
        for _ in range(2):
            await api.submitted()
        await sim.forward(100)
        first, second = await api.history(), await api.history()
        assert [len(item) for item in first] == [9, 3]
        assert [sorted(item) for item in second] == [sorted(first[1]), sorted(first[0])]
        assert not {"input", "inputs"} & set(first[0])


SHAPES = ("null-nsfw", "object-outputs", "unknown-status", "missing-fields")


@pytest.mark.parametrize("fault", SHAPES)
async def test_a_prediction_has_the_shape_that_was_asked_for(fault: str) -> None:
    """Before its end and after it; whether it has ended, and its outputs, are always told."""
    async with simulated(fault) as (sim, api):
        created = data(await api.submit())
        running = data(await api.result(created["id"]))
        await sim.forward(100)
        ended = data(await api.result(created["id"]))
        [past] = await api.history(status="completed")
    unknown = "warming_up" if fault == "unknown-status" else "created"
    assert (created["status"], running["status"]) == (unknown, unknown)
    assert ended["status"] == past["status"] == "completed"
    url = f"{sim.url}/outputs/{created['id']}.mp4"
    assert ended["outputs"] == [{"url": url} if fault == "object-outputs" else url]
    if fault == "missing-fields":
        assert set(created) == {"id", "status"}
        assert set(ended) == {"id", "status", "outputs"}
    else:
        assert ended["has_nsfw_contents"] == (None if fault == "null-nsfw" else [False])
        assert "timings" in ended


async def test_a_failed_task_is_told_as_failed_on_the_worst_day() -> None:
    """No fault turns an end into another status."""
    async with simulated(",".join(SHAPES)) as (sim, api):
        id = await api.submitted(prompt="[fail]")
        await sim.forward(100)
        assert data(await api.result(id)) == {"id": id, "status": "failed"}


async def test_an_unknown_model_is_not_found_and_uncounted_in_the_bill() -> None:
    """But it is a submit that came."""
    async with simulated() as (sim, api):
        answer = await api.post("api/v3/kwaivgi/kling-v9", json=INPUT)
        assert answer.status_code == httpx.codes.NOT_FOUND
        assert (sim.calls["submit"], sim.tasks) == (1, [])
