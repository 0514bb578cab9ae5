"""/api/predictions: who is let in, what may be asked, what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import Event
from receiver.results.long_poll import ResultWaiters
from receiver.telemetry import TelemetryEvent
from receiver.web.api import result_routes
from tests.support.asgi import NOW, Answer, Inbox, Log, request
from tests.support.web_fixtures import Build

TOKEN = "admin-t\u00f6ken"
BEARER = [(b"authorization", b"Bearer " + TOKEN.encode())]
DAY = 86_400.0
BODY = {"id": "t1", "status": "completed", "model": "m", "outputs": ["https://x/1"], "n": 1.50}


def event(task: str = "t1", **changes: Any) -> Event:
    made: dict[str, Any] = {
        "id": f"wavespeed:{task}:completed",
        "source": "wavespeed",
        "type": "prediction.completed",
        "subject": task,
        "model": "m",
        "context": {"user": "\u00e9"},
        "body": json.dumps(BODY | {"id": task}).encode(),
        "received_at": NOW + 0.5,
    }
    return Event(**(made | changes))


@pytest.fixture
def api(build: Build, inbox: Inbox, told: list[TelemetryEvent]) -> Starlette:
    """A receiver with the routes; its store is not open yet."""
    app = build()
    results = ResultWaiters(inbox)
    app.router.routes += result_routes(results, TOKEN, app.state.lifecycle, hooks=[told.append])
    return app


async def get(
    app: Starlette,
    path: str = "/api/predictions/t1",
    query: str = "",
    *,
    headers: list[tuple[bytes, bytes]] = BEARER,
    method: str = "GET",
) -> Answer:
    return await request(app, path, headers, method=method, query_string=query.encode())


async def test_a_result_is_given(api: Starlette, inbox: Inbox) -> None:
    """The first need opens the store; the answer is the event, with the sender's own object."""
    await inbox.open()
    await inbox.add(event(), {})
    await inbox.close()

    answer = await get(api)

    assert answer.status == 200
    assert answer.json == {
        "id": "t1",
        "status": "completed",
        "event_id": "wavespeed:t1:completed",
        "model": "m",
        "context": {"user": "\u00e9"},
        "received_at": NOW + 0.5,
        "prediction": BODY,
    }
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"content-length") == b"%d" % len(answer.body)
    assert answer.header(b"cache-control") == b"no-store"


async def test_nothing_yet_is_204(api: Starlette) -> None:
    """No result is no error, and is not to be remembered by anything in between."""
    answer = await get(api)

    assert (answer.status, answer.body) == (204, b"")
    assert answer.header(b"cache-control") == b"no-store"


async def test_a_purged_result_still_says_how_it_ended(api: Starlette, inbox: Inbox) -> None:
    """F42: the status stays; prediction and context are null."""
    await inbox.open()
    await inbox.add(event(), {})
    await inbox.purge(before=NOW + DAY, now=NOW)

    answer = await get(api)

    assert answer.json["status"] == "completed"
    assert (answer.json["prediction"], answer.json["context"]) == (None, None)


async def test_news_begin_now_and_go_on_by_cursor(api: Starlette, inbox: Inbox) -> None:
    """Without a number there is the present one; with it there is all that came after."""
    await inbox.open()
    await inbox.add(event("old"), {})
    first = await get(api, "/api/predictions", "wait=60")
    assert first.json == {"cursor": 1, "predictions": []}
    for number in range(3):
        await inbox.add(event(f"t{number}"), {})

    pages = []
    cursor = 1
    for _ in range(3):
        answer = await get(api, "/api/predictions", f"after={cursor}&limit=2")
        assert answer.status == 200
        cursor = answer.json["cursor"]
        pages.append([each["id"] for each in answer.json["predictions"]])

    assert pages == [["t0", "t1"], ["t2"], []]
    assert cursor == 4


async def test_news_are_the_same_objects(api: Starlette, inbox: Inbox) -> None:
    """One form for one result, however it is asked for."""
    await inbox.open()
    await inbox.add(event(), {})

    news = (await get(api, "/api/predictions", "after=0")).json

    assert news == {"cursor": 1, "predictions": [(await get(api)).json]}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer admin")],
        [(b"authorization", b"Bearer " + TOKEN.encode() + b"x")],
        [(b"authorization", b"Bearer " + TOKEN.encode("latin-1"))],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", b"Basic " + TOKEN.encode())],
        [(b"x-authorization", b"Bearer " + TOKEN.encode())],
        BEARER * 2,
    ],
)
@pytest.mark.parametrize("path", ["/api/predictions", "/api/predictions/t1"])
async def test_without_the_token_there_is_nothing(
    api: Starlette, inbox: Inbox, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """One answer to whoever has not the token, whatever else is wrong; nothing is read."""
    answer = await get(api, path, "wait=x&nonsense", headers=headers)

    assert answer.status == 401
    assert answer.header(b"www-authenticate") == b"Bearer"
    assert answer.header(b"content-type") == b"application/problem+json"
    assert "Authorization: Bearer" in answer.json["title"]
    assert inbox.calls == []


async def test_the_scheme_is_told_in_any_case(api: Starlette) -> None:
    """RFC 9110, section 11.1: the name of a scheme has no case."""
    assert (
        await get(api, headers=[(b"authorization", b"bEARER  " + TOKEN.encode())])
    ).status == 204


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/api/predictions", "/api/predictions/t1"])
async def test_other_methods_are_405(api: Starlette, inbox: Inbox, path: str, method: str) -> None:
    """ResultWaiters can be read, and nothing else; a HEAD would wait for nothing."""
    answer = await get(api, path, method=method)

    assert (answer.status, answer.header(b"allow")) == (405, b"GET")
    assert inbox.calls == []


@pytest.mark.parametrize(
    "value", ["", "-1", "61", "60.5", "1e1", "x", "nan", "inf", "\u0661", "1 "]
)
async def test_a_bad_wait_is_400(api: Starlette, value: str) -> None:
    """What was expected is said, and the value is not repeated."""
    answer = await get(api, query=f"wait={value}")

    assert (answer.status, answer.json["type"]) == (400, "urn:wavehook:problem:bad-request")
    assert answer.json["title"] == "wait: expected seconds, 0 to 60, once"


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("after=-1", "after: expected the cursor of the previous response, once"),
        ("after=", "after: expected the cursor of the previous response, once"),
        ("after=1.0", "after: expected the cursor of the previous response, once"),
        ("after=9999999999999999999", "after: expected the cursor of the previous response, once"),
        ("after=1&after=2", "after: expected the cursor of the previous response, once"),
        ("limit=0", "limit: expected a whole number from 1 to 100, once"),
        ("limit=101", "limit: expected a whole number from 1 to 100, once"),
        ("limit=many", "limit: expected a whole number from 1 to 100, once"),
        ("wiat=30", "Query: expected only after, wait, limit"),
        ("%ff=%fe", "Query: expected only after, wait, limit"),
    ],
)
async def test_a_bad_query_is_400(api: Starlette, inbox: Inbox, query: str, title: str) -> None:
    """A value that cannot be, one that is told twice, and a name that is not known."""
    answer = await get(api, "/api/predictions", query)

    assert (answer.status, answer.json["title"]) == (400, title)
    assert inbox.calls == []


async def test_a_cursor_far_ahead_begins_at_the_first(api: Starlette, inbox: Inbox) -> None:
    """A reader of a database that was replaced misses nothing of the new one."""
    await inbox.open()
    await inbox.add(event(), {})

    answer = await get(api, "/api/predictions", "after=999999999999999999&wait=60")

    assert answer.json["cursor"] == 1
    assert len(answer.json["predictions"]) == 1


@pytest.mark.parametrize("task", ["x" * 257, "a\nb", "\x00", "\udcff"])
async def test_a_task_id_that_cannot_be_is_400(api: Starlette, inbox: Inbox, task: str) -> None:
    """What no event could ever be stored under is not looked for."""
    answer = await get(api, f"/api/predictions/{task}")

    assert answer.status == 400
    assert answer.json["title"] == "id: expected a task id of at most 256 characters"
    assert inbox.calls == []


@pytest.mark.parametrize("task", ["x" * 256, "' OR 1=1 --", "\u00e9\U0001f600", "..", "%", "a:b"])
async def test_any_other_task_id_is_looked_for(api: Starlette, inbox: Inbox, task: str) -> None:
    """Task ids are opaque text."""
    await inbox.open()
    await inbox.add(event(task), {})

    assert (await get(api, f"/api/predictions/{task}")).json["id"] == task


@pytest.mark.parametrize("path", ["/api/predictions", "/api/predictions/t1"])
@pytest.mark.parametrize(
    ("failure", "seconds"),
    [(StoreUnavailable("disk full", 7), b"7"), (SchemaMismatch("newer", 9, 1), b"5")],
)
async def test_a_store_that_fails_is_503(
    api: Starlette,
    inbox: Inbox,
    told: list[TelemetryEvent],
    path: str,
    failure: Exception,
    seconds: bytes,
) -> None:
    """F20: the asker is told when to come again, the log why."""
    inbox.failure = failure

    answer = await get(api, path)

    assert (answer.status, answer.header(b"retry-after")) == (503, seconds)
    assert str(failure).encode() not in answer.body
    assert told == [TelemetryEvent("store.failed", error=f"{type(failure).__name__}: {failure}")]


async def test_a_receiver_that_shuts_down_opens_nothing(api: Starlette) -> None:
    """F40: a late question is told to come again."""
    api.state.lifecycle.closing = True

    assert (await get(api)).status == 503


async def test_the_log_holds_neither_task_nor_token_nor_result(
    api: Starlette, inbox: Inbox, log: Log
) -> None:
    """F16: the line names the route's template; query and body are nobody's business."""
    await inbox.open()
    await inbox.add(event("secret-task"), {})
    await get(api, "/api/predictions/secret-task")
    await get(api, "/api/predictions", "after=0&limit=77")
    await get(api, headers=[(b"authorization", b"Bearer secret-guess")])

    routes = [line["route"] for line in log.lines("request.served")]
    assert routes == ["/api/predictions/{id}", "/api/predictions", "/api/predictions/{id}"]
    for secret in ("secret", "https://x/1", "limit", "dmin-t"):
        assert secret not in log.text


def test_an_empty_token_lets_nobody_start(build: Build, inbox: Inbox) -> None:
    """Without a token there are no routes, rather than routes for everybody."""
    with pytest.raises(ValueError, match="token"):
        result_routes(ResultWaiters(inbox), "", build().state.lifecycle)
