"""The simulator's API, asked as the vendor's would be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from submitter.api.transport import tls_context
from submitter.prediction import Prediction
from submitter.simulator.api import SimState, create_app
from submitter.simulator.clock import SimClock, Timeline
from submitter.simulator.faults import FaultInjector, Faults
from submitter.simulator.tasks import TaskStore
from submitter.simulator.webhook_sender import WebhookSender
from tests.support.clocks import Clock

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
INPUT = {"prompt": "a lighthouse at dusk", "image": "https://example.com/first.png"}


@pytest.fixture
def clock() -> Clock:
    return Clock(1_772_356_368.25)


@pytest.fixture
async def world(clock: Clock) -> AsyncIterator[SimState]:
    timeline, plan = Timeline(), FaultInjector(Faults())
    pace = SimClock(timeline, clock)
    async with httpx.AsyncClient(verify=tls_context()) as client:
        sender = WebhookSender(
            client,
            secret="whsec_k",
            injector=plan,
            sim_clock=pace,
            clock=clock,
            render=lambda *_: b"",
        )
        yield SimState(
            TaskStore(timeline), sender, plan, pace, clock, "whsec_k", None, "http://sim"
        )
        await sender.stop()


@pytest.fixture
async def api(world: SimState) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(world)),
        base_url="http://sim/api/v3/",
        headers={"Authorization": "Bearer k"},
    ) as client:
        yield client


async def submit(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post(MODEL, json={**INPUT, **more})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["code"], body["message"]) == (200, "success")
    data: dict[str, Any] = body["data"]
    return data


async def test_a_submit_answers_with_a_created_prediction(api: httpx.AsyncClient) -> None:
    """The shape is the documented one, and reads as a Prediction."""
    data = await submit(api)
    task = Prediction.parse(data)
    assert task is not None
    assert (task.status, task.model, task.outputs) == ("created", MODEL, ())
    assert task.result_url == f"http://sim/api/v3/predictions/{task.id}/result"
    assert len(task.id) == 32
    assert data["has_nsfw_contents"] is None
    assert data["created_at"] == "2026-03-01T09:12:48.250000000Z"


@pytest.mark.parametrize("suffix", ["/result", ""])
async def test_a_result_goes_through_its_statuses(
    api: httpx.AsyncClient, clock: Clock, suffix: str
) -> None:
    """The result endpoint, with or without its last word, follows the task's life."""
    id = (await submit(api))["id"]
    seen = []
    for step in (0.0, 5.0, 60.0):
        clock.now += step
        seen.append((await api.get(f"predictions/{id}{suffix}")).json()["data"])
    assert [data["status"] for data in seen] == ["created", "processing", "completed"]
    assert seen[2]["outputs"] == [f"http://sim/outputs/{id}.mp4"]
    assert seen[2]["timings"] == {"inference": 40000}
    assert "code" not in seen[2]


async def test_a_failed_task_is_still_a_success_of_the_request(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    """HTTP 200, outer code 200, and the failure inside."""
    id = (await submit(api, prompt="[moderated] x"))["id"]
    clock.now += 60
    answer = await api.get(f"predictions/{id}/result")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (200, 200)
    assert (body["data"]["status"], body["data"]["code"]) == ("failed", 1200)
    assert body["data"]["error"]
    assert body["data"]["outputs"] == []


async def test_an_output_is_there_once_its_task_has_completed(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    """Before completion 404, then a video of the length that was asked for; no key needed."""
    task = await submit(api, duration=10)
    url = f"http://sim/outputs/{task['id']}.mp4"
    assert (await api.get(url)).status_code == 404
    clock.now += 60
    answer = await api.get(url, headers={"Authorization": ""})
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:12] == b"ftypisom"
    assert (await api.get("http://sim/outputs/nobody.mp4")).status_code == 404


async def test_the_first_frame_is_a_picture(api: httpx.AsyncClient) -> None:
    """A real PNG to submit."""
    answer = await api.get("http://sim/media/first-frame.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


async def test_the_history_is_paged_and_newest_first(api: httpx.AsyncClient, clock: Clock) -> None:
    """Three tasks on two pages; the input is under one name or the other."""
    ids = []
    for _ in range(3):
        ids.append((await submit(api))["id"])
        clock.now += 1
    pages = [
        (await api.post("predictions", json={"page": page, "page_size": 2})).json()["data"]
        for page in (1, 2, 3)
    ]
    assert [page["page"] for page in pages] == [1, 2, 3]
    items = [item for page in pages for item in page["items"]]
    assert [item["id"] for item in items] == ids[::-1]
    assert [item.get("input") == INPUT for item in items] == [True, False, True]
    assert items[1]["inputs"] == INPUT


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"model": MODEL}, 2),
        ({"model": "x/y"}, 0),
        ({"status": "created"}, 1),
        ({"status": ""}, 2),
        ({"created_after": "2026-03-01T09:13:00Z"}, 1),
        ({"created_before": "2026-03-01T09:13:00Z"}, 1),
        ({"created_after": "", "created_before": "2026-03-01T00:00:00Z"}, 0),
    ],
)
async def test_the_history_can_be_narrowed(
    api: httpx.AsyncClient, clock: Clock, query: dict[str, str], count: int
) -> None:
    """By model, status and time."""
    await submit(api)
    clock.now += 30
    await submit(api)
    answer = await api.post("predictions", json={"page": 1, "page_size": 100, **query})
    assert len(answer.json()["data"]["items"]) == count


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({}, "page"),
        ({"page": 0, "page_size": 10}, "page"),
        ({"page": True, "page_size": 10}, "page"),
        ({"page": 1, "page_size": 101}, "page_size"),
        ({"page": 1, "page_size": 1, "created_after": "yesterday"}, "created_after"),
    ],
)
async def test_a_wrong_history_query_is_refused(
    api: httpx.AsyncClient, query: dict[str, Any], name: str
) -> None:
    """The refusal names the field."""
    await submit(api)
    answer = await api.post("predictions", json=query)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(name)


async def test_the_models_come_with_their_schemas(api: httpx.AsyncClient) -> None:
    """The built-in model stands in the catalogue as the vendor lists it."""
    models = {model["model_id"]: model for model in (await api.get("models")).json()["data"]}
    schema = models[MODEL]["api_schema"]["api_schemas"][0]["request_schema"]
    assert models[MODEL]["base_price"] == 0.25
    assert set(schema["required"]) == {"prompt", "image"}


async def test_every_submit_is_billed(api: httpx.AsyncClient) -> None:
    """The bill counts submits, the balance goes down, and no prompt is shown."""
    await submit(api)
    await submit(api, duration=10)
    await api.post(MODEL, json={})
    answer = await api.get("http://sim/simulator/bill")
    assert (answer.json()["submits"], answer.json()["cost"]) == (2, 0.75)
    assert "lighthouse" not in answer.text
    assert (await api.get("balance")).json()["data"] == {"balance": 99.25}


async def test_the_webhook_secret_can_be_fetched(api: httpx.AsyncClient) -> None:
    """In the envelope, as clients have seen it."""
    assert (await api.get("webhook/secret")).json()["data"] == {"secret": "whsec_k"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 2501}, "prompt"),
        ({"duration": 7}, "duration"),
        ({"guidance_scale": 2}, "guidance_scale"),
        ({"seed": 1}, "input"),
    ],
)
async def test_a_wrong_input_is_refused(
    api: httpx.AsyncClient, world: SimState, change: dict[str, Any], where: str
) -> None:
    """The schema decides; nothing is created or billed."""
    answer = await api.post(MODEL, json={**INPUT, **change})
    assert answer.status_code == 400
    assert answer.json()["code"] == 400
    assert answer.json()["message"].startswith(where)
    assert not world.tasks.submitted


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"a":NaN}', rb'{"prompt":"\ud800"}', b"[" * 100_000]
)
async def test_a_body_that_is_no_object_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    """Never 500."""
    answer = await api.post(MODEL, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


async def test_an_unknown_model_or_task_or_path_is_not_found(api: httpx.AsyncClient) -> None:
    """404 in the vendor's shape."""
    for answer in (
        await api.post("x/y", json=INPUT),
        await api.get("predictions/nobody/result"),
        await api.get("http://sim/nowhere"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic k", "k"])
async def test_without_a_bearer_key_nothing_is_answered(
    api: httpx.AsyncClient, header: str
) -> None:
    """401 before anything else, also for what does not exist."""
    for path in ("balance", "models", "webhook/secret", "predictions/x/result"):
        answer = await api.get(path, headers={"Authorization": header})
        assert (answer.status_code, answer.json()["code"]) == (401, 401)
    assert (await api.post("x/y", headers={"Authorization": header})).status_code == 401


async def test_with_a_key_given_only_that_one_is_accepted(
    api: httpx.AsyncClient, world: SimState
) -> None:
    """Bytes beyond ASCII are compared as well."""
    world.api_key = "only-this"
    for key, status in ((b"only-this", 200), (b"k", 401), (b"\xe9", 401)):
        answer = await api.get("balance", headers={b"Authorization": b"Bearer " + key})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "http://10.0.0.1/hook",
        "http://127.0.0.1.example.com/hook",
        "ftp://127.0.0.1/hook",
        "https://",
        "hook",
        "",
        "https://x:port/",
    ],
)
async def test_a_webhook_url_must_be_https_off_this_machine(
    api: httpx.AsyncClient, world: SimState, url: str
) -> None:
    """Plain HTTP would send the token in the open; nothing is created."""
    answer = await api.post(MODEL, params={"webhook": url}, json=INPUT)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("webhook")
    assert not world.tasks.submitted


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?a=1&b=%2F",
        "http://127.0.0.1:1/hook",
        "http://localhost:1/",
        "http://[::1]:1/",
    ],
)
async def test_a_webhook_url_keeps_its_own_path_and_query(
    api: httpx.AsyncClient, world: SimState, url: str
) -> None:
    """HTTPS anywhere and HTTP to this machine are taken as they are."""
    answer = await api.post(MODEL, params={"webhook": url}, json=INPUT)
    assert answer.status_code == 200
    assert [task.webhook for task in world.tasks.submitted.values()] == [url]


async def test_a_webhook_with_base64_output_is_refused(api: httpx.AsyncClient) -> None:
    """In the vendor's other shape of an error."""
    answer = await api.post(
        MODEL,
        params={"webhook": "https://example.com"},
        json={**INPUT, "enable_base64_output": True},
    )
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
