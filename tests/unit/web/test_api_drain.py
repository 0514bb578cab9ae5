"""/api/drain: who may ask, with what, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from starlette.applications import Starlette

from receiver.errors import StoreUnavailable
from receiver.telemetry import TelemetryEvent
from receiver.web.api import drain_routes
from tests.support.asgi import Answer, Inbox, request
from tests.support.web_fixtures import Build

TOKEN = "admin-t\u00f6ken"
BEARER = [(b"authorization", b"Bearer " + TOKEN.encode())]


class Drain:
    """Notes what it is asked, and that what follows was waited for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float] | str] = []
        self.failure: Exception | None = None

    async def __call__(self, limit: int, deadline: float) -> Mapping[str, int]:
        self.asked.append((limit, deadline))
        if self.failure is not None:
            raise self.failure
        return {"ran": 3, "reconciled": 0, "more": False}

    async def flush_ledger(self) -> None:
        self.asked.append("flush_ledger")


@pytest.fixture
def drain() -> Drain:
    return Drain()


@pytest.fixture
def api(build: Build, drain: Drain, told: list[TelemetryEvent]) -> Starlette:
    """A receiver with the route, in a process that may be frozen; its store is not open yet."""
    app = build(dispatch="external")
    lifecycle = app.state.lifecycle
    app.router.routes += drain_routes(
        drain, TOKEN, lifecycle, flush_ledger=drain.flush_ledger, hooks=[told.append]
    )
    return app


async def ask(
    app: Starlette,
    query: str = "",
    *,
    method: str = "POST",
    headers: list[tuple[bytes, bytes]] = BEARER,
) -> Answer:
    return await request(app, "/api/drain", headers, method=method, query_string=query.encode())


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_what_is_due_is_done(api: Starlette, drain: Drain, method: str) -> None:
    """A schedule that can only GET does the same; nothing is left for after the answer (F41)."""
    answer = await ask(api, method=method)

    assert (answer.status, answer.json) == (200, {"ran": 3, "reconciled": 0, "more": False})
    assert answer.header(b"cache-control") == b"no-store"
    assert drain.asked == [(1000, 20.0), "flush_ledger"]


async def test_limits_of_ones_own(api: Starlette, drain: Drain) -> None:
    """As the platform's own limits need them."""
    await ask(api, "deadline=2.5&limit=7")

    assert drain.asked[0] == (7, 2.5)


@pytest.mark.parametrize(
    "query",
    ["deadline=0", "deadline=601", "deadline=1e2", "limit=0", "limit=100001", "limit=1.5",
     "limit=1&limit=2", "wait=5"],
)  # fmt: skip
async def test_what_cannot_be(api: Starlette, drain: Drain, query: str) -> None:
    """A mistyped limit is told, and nothing is done."""
    answer = await ask(api, query)

    assert (answer.status, drain.asked) == (400, [])
    assert "expected" in answer.json["title"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer other")],
        [(b"authorization", b"Basic " + TOKEN.encode())],
        [*BEARER, *BEARER],
    ],
)
async def test_without_the_token(
    api: Starlette, drain: Drain, inbox: Inbox, headers: list[tuple[bytes, bytes]]
) -> None:
    """F38: 401, and neither the store nor a handler is touched."""
    answer = await ask(api, headers=headers)

    assert (answer.status, drain.asked, inbox.calls) == (401, [], [])
    assert answer.header(b"www-authenticate") == b"Bearer"


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_other_methods(api: Starlette, drain: Drain, method: str) -> None:
    """Who looks only whether it is there starts nothing."""
    assert ((await ask(api, method=method)).status, drain.asked) == (405, [])


async def test_a_store_that_is_away(
    api: Starlette, drain: Drain, told: list[TelemetryEvent]
) -> None:
    """F20: the schedule is told to come again."""
    drain.failure = StoreUnavailable("away")

    answer = await ask(api)

    assert (answer.status, answer.header(b"retry-after")) == (503, b"5")
    assert [details.name for details in told] == ["store.failed"]


async def test_a_process_that_lasts_does_not_wait(build: Build, drain: Drain) -> None:
    """What follows is done in the background there."""
    app = build()
    app.router.routes += drain_routes(
        drain, TOKEN, app.state.lifecycle, flush_ledger=drain.flush_ledger
    )

    assert (await ask(app)).status == 200
    assert drain.asked == [(1000, 20.0)]


async def test_without_a_token_it_does_not_exist(build: Build) -> None:
    """F38: there is no door to try keys on; an empty token makes none."""
    app = build()
    assert (await ask(app)).status == 404
    with pytest.raises(ValueError, match="token"):
        drain_routes(Drain(), "", app.state.lifecycle)
