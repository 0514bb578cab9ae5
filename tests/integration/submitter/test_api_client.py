"""The whole API, one method a call, over real sockets."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from submitter.api import client as calls_module
from submitter.api.client import ApiClient
from submitter.api.models import Price
from submitter.api.transport import _wait
from submitter.errors import (
    ApiError,
    AuthFailed,
    BadInput,
    BadSettings,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)
from submitter.settings import BASE_URL
from tests.support.misbehaving_server import (
    Misbehaviour,
    Server,
    answering,
    endless,
    good,
    resetting,
    saying,
    serving,
)

pytestmark = pytest.mark.anyio

KEY, PROMPT, NOW = "wave-KEY-5e2a3b", "a PROMPT that nobody may see", 1_772_356_368.25
KLING = "kwaivgi/kling-v2.1-i2v-standard"
DONE = {"id": "t1", "status": "completed"}

Call = Callable[[ApiClient], Coroutine[Any, Any, Any]]


async def listed(calls: ApiClient, **filters: Any) -> list[str]:
    return [prediction.id async for prediction in calls.history(**filters)]


ASKS: dict[str, tuple[Call, str, Any]] = {
    "result": (lambda calls: calls.result("t1"), "GET /api/v3/predictions/t1/result", DONE),
    "history": (listed, "POST /api/v3/predictions", {"items": []}),
    "delete": (lambda calls: calls.delete("t1"), "POST /api/v3/predictions/delete", None),
    "models": (lambda calls: calls.models(), "GET /api/v3/models", []),
    "price": (
        lambda calls: calls.price(KLING, {"prompt": PROMPT}),
        "POST /api/v3/model/price",
        {"price": 0.25},
    ),
    "balance": (lambda calls: calls.balance(), "GET /api/v3/balance", {"balance": 3}),
    "secret": (
        lambda calls: calls.webhook_secret(),
        "GET /api/v3/webhook/secret",
        {"secret": "whsec_abc"},
    ),
}
EACH = pytest.mark.parametrize("name", ASKS)


async def ask(name: str, server: Server, **more: Any) -> Any:
    async with ApiClient(KEY, server.url, clock=lambda: NOW, **more) as calls:
        return await ASKS[name][0](calls)


@EACH
async def test_each_call_is_one_request(name: str) -> None:
    """Each call asks once, with the key and with who asks; no cookies, nothing else."""
    _, line, data = ASKS[name]
    async with serving(good(data)) as server:
        await ask(name, server)
    [request] = server.received
    assert f"{request.method} {request.target}" == line
    assert request.header("authorization") == [f"Bearer {KEY}"]
    assert request.header("x-client-name") == ["wavehook"]
    assert request.header("x-client-version") == [importlib.metadata.version("wavehook")]
    assert request.header("x-client-os")
    assert all(ord(c) < 127 for _, value in request.headers for c in value)


@EACH
@pytest.mark.parametrize(
    "ways",
    [
        (saying(b""), resetting, saying(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")),
        (
            answering("429 Too Many"),
            answering("429 Too Many", b"", "retry-after: 7\r\n"),
            answering("200 OK", {"code": 5003}),
        ),
        (
            answering("500 Oops"),
            answering("503 Busy", b"<html>", "retry-after: 60\r\n"),
            answering("200 OK", b"<html>", "content-type: text/html\r\n"),
        ),
    ],
    ids=["network", "limits", "faults"],
)
async def test_questions_are_asked_again(name: str, ways: tuple[Misbehaviour, ...]) -> None:
    """Network errors, 429 and 5xx are asked again until there is an answer."""
    data = ASKS[name][2]
    async with serving(*ways, good(data)) as server:
        await ask(name, server)
    lines = [f"{request.method} {request.target}" for request in server.received]
    assert lines == [ASKS[name][1]] * 4


@EACH
async def test_questions_end(name: str) -> None:
    """An API that stays away is given up on."""
    async with serving(answering("503 Busy")) as server:
        with pytest.raises(Unavailable):
            await ask(name, server)
    assert len(server.received) == 5


@EACH
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (answering("401 No", {"message": PROMPT}), AuthFailed),
        (answering("404 No", {"detail": [{"msg": KEY}]}), NotFound),
        (answering("400 No", {"error": {"message": PROMPT}}), ApiError),
        (answering("307 Moved", b"", "location: https://elsewhere.example/\r\n"), ApiError),
        (answering("429 Too Many", b"", "retry-after: 3600\r\n"), RateLimited),
        (answering("200 OK", {"code": 403, "message": KEY}), AuthFailed),
    ],
    ids=range(6),
)
async def test_refusals(name: str, way: Misbehaviour, kind: type[ApiError]) -> None:
    """F16: a refusal, or a wait of an hour, is raised at once, and shows nothing private."""
    async with serving(way) as server:
        with pytest.raises(kind) as caught:
            await ask(name, server)
    assert len(server.received) == 1
    shown = f"{caught.value!r} {''.join(traceback.format_exception(caught.value))}"
    assert not any(secret in shown for secret in (KEY, PROMPT))


@pytest.mark.parametrize("name", sorted(ASKS.keys() - {"delete"}))
async def test_answers_without_what_was_asked_for(name: str) -> None:
    """F11: a good answer that holds nothing usable is an error that says what is missing."""
    odd = ["a b", 5.5e400, True, None, {}, {"items": 5}, {"price": "?", "balance": []}]
    for data in odd:
        async with serving(good(data)) as server:
            with pytest.raises(ApiError, match="the API's response has no"):
                await ask(name, server)


async def test_an_endless_answer_is_left() -> None:
    """F8: no more is read of an answer than the limit."""
    async with serving(endless) as server:
        with pytest.raises(Unavailable, match="longer than"):
            await ask("models", server, max_response_bytes=2**21)


def test_retry_after_is_waited_for() -> None:
    """F27: the wait is what the API said, and up to a second more, so that clients spread."""
    waits = [_wait(RateLimited(retry_after=7.0)) for _ in range(20)]
    assert all(7.0 <= wait <= 8.0 for wait in waits)
    assert len(set(waits)) > 1


async def test_result_of_another_task() -> None:
    """An answer about another task is not taken for this one's."""
    async with serving(good({"id": "t2", "status": "completed"})) as server:
        with pytest.raises(ApiError, match="another task"):
            await ask("result", server)


async def test_cookies_are_not_kept() -> None:
    """What one answer sets is not sent with the next request."""
    way = answering(body={"data": {"balance": 1}}, headers="set-cookie: a=SECRET\r\n")
    async with serving(way) as server, ApiClient(KEY, server.url) as calls:
        await calls.balance()
        await calls.balance()
    assert [request.header("cookie") for request in server.received] == [[], []]


def tasks(*numbers: int) -> list[Any]:
    return [{"id": f"t{number}", "status": "completed"} for number in numbers]


async def history(*pages: list[Any], **filters: Any) -> tuple[list[str], list[Any]]:
    ways = [good({"page": 1, "items": page}) for page in pages]
    async with serving(*ways) as server, ApiClient(KEY, server.url) as calls:
        found = await listed(calls, **filters)
    return found, [request.json for request in server.received]


async def test_history_goes_through_the_pages() -> None:
    """Pages are asked for one after the other until one is empty."""
    found, asked = await history(tasks(5, 4), tasks(3, 2), tasks(1), [], page_size=2)
    assert found == ["t5", "t4", "t3", "t2", "t1"]
    assert asked == [{"page": page, "page_size": 2} for page in (1, 2, 3, 4)]


async def test_history_while_tasks_are_created() -> None:
    """A task that a new one has pushed to the next page is given once."""
    found, _ = await history(tasks(3, 2), tasks(2, 1), tasks(1), page_size=2)
    assert found == ["t3", "t2", "t1"]


async def test_history_with_a_short_page_in_the_middle() -> None:
    """F32: a page that lacks a task does not hide those that follow: one of them may be paid."""
    found, _ = await history(tasks(5), tasks(3, 2), tasks(), page_size=2)
    assert found == ["t5", "t3", "t2"]


async def test_history_passes_over_what_is_no_prediction() -> None:
    """F11: items that nothing can be asked about are left out, the others stay."""
    odd = [None, 5, {}, {"id": "../x", "status": "completed"}, {"id": "t9", "status": None}]
    found, _ = await history([*odd, *tasks(1)], [])
    assert found == ["t1"]


async def test_a_history_without_end_is_no_history() -> None:
    """F32: pages that repeat themselves are an error, and not taken for the whole."""
    with pytest.raises(Unavailable, match="no end"):
        await history(tasks(2, 1), page_size=2)
    with pytest.raises(Unavailable, match="no end"):
        await history([None, None], page_size=2)


async def test_a_history_that_is_too_long() -> None:
    """The number of pages is bounded."""
    with pytest.raises(Unavailable, match="no end"):
        await history(tasks(3), tasks(2), tasks(1), page_size=1, max_pages=2)


async def test_history_filters() -> None:
    """Filters are sent as the API reads them: times in UTC, to the microsecond."""
    _, [asked] = await history(
        [], model=KLING, status="failed", created_after=0.0, created_before=NOW, page_size=100
    )
    assert asked == {
        "page": 1,
        "page_size": 100,
        "model": KLING,
        "status": "failed",
        "created_after": "1970-01-01T00:00:00.000000Z",
        "created_before": "2026-03-01T09:12:48.250000Z",
    }


async def test_history_asks_for_a_page_when_it_is_needed() -> None:
    """Whoever stops early asks no further; the rest of the page costs nothing."""
    ways = [good({"items": tasks(2, 1)}), good({"items": []})]
    async with serving(*ways) as server, ApiClient(KEY, server.url) as calls:
        pages: AsyncIterator[Any] = calls.history(page_size=2)
        assert [(await anext(pages)).id, (await anext(pages)).id] == ["t2", "t1"]
    assert len(server.received) == 1


async def test_bad_filters() -> None:
    """All faults of the filters come at once, and nothing is asked."""
    nan = float("nan")
    async with serving(good([])) as server, ApiClient(KEY, server.url) as calls:
        with pytest.raises(BadInput) as caught:
            await listed(calls, model="..", status="a b", created_after=nan, page_size=101)
        with pytest.raises(BadInput, match="created_before"):
            await listed(calls, created_before=1e18)
    paths = {fault.path for fault in caught.value.faults}
    assert paths == {"model", "status", "created_after", "page_size"}
    assert server.received == []


async def test_delete() -> None:
    """Ids go in requests of a hundred at most; an answer may be empty."""
    ids = [f"t{number}" for number in range(150)]
    empty = answering("204 No Content")
    async with serving(good(None), empty) as server, ApiClient(KEY, server.url) as calls:
        await calls.delete(*ids)
    assert [request.json for request in server.received] == [{"ids": ids[:100]}, {"ids": ids[100:]}]


async def test_delete_is_all_or_nothing_about_ids() -> None:
    """Ids that no task can have are all named, and nothing is removed; no ids ask nothing."""
    async with serving(good(None)) as server, ApiClient(KEY, server.url) as calls:
        await calls.delete()
        with pytest.raises(BadInput) as caught:
            await calls.delete(*["t1"] * 100, "../a", "b/c")
    assert len(caught.value.faults) == 2
    assert server.received == []


async def test_models() -> None:
    """Models are read with what is known of them; what is no model is passed over."""
    kling = {
        "model_id": KLING,
        "name": "Kling",
        "description": "Video",
        "type": "image-to-video",
        "base_price": 0.25,
        "api_schema": {"api_schemas": [{"type": "x"}, {"request_schema": {"type": "object"}}]},
    }
    odd = {"model_id": "a/b", "name": 5, "base_price": "1", "api_schema": {"api_schemas": {}}}
    async with serving(good([kling, odd, {"model_id": ""}, None])) as server:
        first, second = await ask("models", server)
    assert (first.id, first.name, first.type, first.base_price) == (
        KLING,
        "Kling",
        "image-to-video",
        0.25,
    )
    assert first.schema == {"type": "object"}
    assert (second.name, second.description, second.base_price, second.schema) == (
        "a/b",
        "",
        None,
        None,
    )


async def test_price() -> None:
    """The price is asked for the model and its input."""
    way = good({"price": 0.5, "discounted_price": 0.4, "currency": "USD"})
    async with serving(way) as server:
        assert await ask("price", server) == Price(0.5, 0.4)
    assert server.received[0].json == {"model_id": KLING, "inputs": {"prompt": PROMPT}}


@pytest.mark.parametrize("discounted", [None, 0, -1, "0.1", float("nan"), True])
async def test_a_price_without_a_discount(discounted: Any) -> None:
    """What is no discount leaves the price, so that a cap on spending holds."""
    async with serving(good({"price": 0.5, "discounted_price": discounted})) as server:
        assert await ask("price", server) == Price(0.5, 0.5)


@pytest.mark.parametrize("price", [-0.5, float("nan"), float("inf"), 10**400, True, "0.5", None])
async def test_a_price_that_is_none(price: Any) -> None:
    """A price that no cap would stop is an error."""
    async with serving(good({"price": price})) as server:
        with pytest.raises(ApiError, match="has no price"):
            await ask("price", server)


async def test_balance() -> None:
    """The balance is USD, and may be owed."""
    for data in ({"balance": -3.5}, -3.5):
        async with serving(good(data)) as server:
            assert await ask("balance", server) == -3.5


async def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and base URL are read when the client is made."""
    async with serving(good({"balance": 1})) as server:
        monkeypatch.setenv("WAVESPEED_API_KEY", f" {KEY}\n")
        monkeypatch.setenv("WAVESPEED_BASE_URL", server.url)
        async with ApiClient() as calls:
            await calls.balance()
    assert server.received[0].header("authorization") == [f"Bearer {KEY}"]


def test_the_apis_own_address() -> None:
    """Without a base URL it is the API's own."""
    assert ApiClient(KEY)._api.base_url == BASE_URL


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "WAVESPEED_API_KEY"),
        ({"api_key": " "}, "WAVESPEED_API_KEY"),
        ({"api_key": "a b"}, "WAVESPEED_API_KEY"),
        ({"api_key": KEY, "base_url": "http://example.com"}, "WAVESPEED_BASE_URL"),
    ],
)
def test_bad_settings(given: dict[str, Any], setting: str) -> None:
    """F15: what cannot work is refused when the client is made, with the setting's name."""
    with pytest.raises(BadSettings) as caught:
        ApiClient(**given)
    assert caught.value.setting == setting


async def test_outside_of_its_context_it_says_how_to_use_it() -> None:
    """Before and after `async with` nothing is sent."""
    async with serving(good(DONE)) as server:
        calls = ApiClient(KEY, server.url)
        with pytest.raises(RuntimeError, match="async with"):
            await calls.result("t1")
        async with calls:
            pass
        with pytest.raises(RuntimeError, match="async with"):
            await calls.post(KLING, {}, None, timeout=1)
        await calls.__aexit__(None, None, None)
    assert server.received == []


async def test_many_calls_at_once() -> None:
    """Connections are shared, and more calls than there are connections all get through."""
    async with serving(good(DONE)) as server, ApiClient(KEY, server.url) as calls:
        done = await asyncio.gather(*(calls.result("t1") for _ in range(150)))
    assert {prediction.id for prediction in done} == {"t1"}
    assert len(server.received) == 150


@pytest.mark.parametrize("error", [None, importlib.metadata.PackageNotFoundError("wavehook")])
async def test_a_version_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """A copy that was not installed works as well."""

    def version(_: str) -> str | None:
        if error:
            raise error
        return None

    calls_module._client_headers.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", version)
        async with serving(good({"balance": 1})) as server:
            await ask("balance", server)
    calls_module._client_headers.cache_clear()
    assert server.received[0].header("x-client-version") == ["unknown"]


async def test_logs_hold_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """F16: no log line has the key, the webhook's token, an input or an upload's permission."""
    caplog.set_level(logging.DEBUG)
    hook = "https://hooks.example.com/webhooks/wavespeed/TOKEN"
    ways = [answering("503 Busy", {"message": PROMPT}), good(DONE)]
    async with serving(*ways) as server, ApiClient(KEY, server.url) as calls:
        with pytest.raises(SubmissionUnknown):
            await calls.post(KLING, {"prompt": PROMPT}, hook, timeout=60)
        await calls.result("t1")
    assert f"POST {server.url} " in caplog.text
    assert not any(secret in caplog.text for secret in (KEY, PROMPT, "TOKEN"))


async def test_errors_are_ours() -> None:
    """Whoever catches SubmitterError catches whatever a call can come to."""
    async with serving(saying(b"\x00" * 100)) as server:
        for name in ASKS:
            with pytest.raises(SubmitterError):
                await ask(name, server)
