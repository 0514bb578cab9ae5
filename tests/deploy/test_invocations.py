"""F41 on PostgreSQL: an event loop for each invocation, lifespan never, once or each time."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from receiver.event import DispatchState, Done
from receiver.scheduled import drain
from receiver.web.asgi import LazyApp
from receiver.web.one_loop import OneLoop
from tests.deploy.functions import MODEL, PATH, Target, bearer, body
from tests.support.asgi import Answer, Log, post, request, running


@pytest.fixture
def app(target: Target, monkeypatch: pytest.MonkeyPatch, log: Log) -> Iterator[OneLoop]:
    """What the entries of `deploy/` import, in the target's environment."""
    monkeypatch.chdir(target.folder)
    monkeypatch.syspath_prepend(target.folder)
    monkeypatch.delitem(sys.modules, "my_handlers", raising=False)
    for name, value in target.environ.items():
        monkeypatch.setenv(name, value)
    app = OneLoop(LazyApp)
    yield app
    app.close()


def sent(app: OneLoop, task: str = "task-1", path: str = PATH) -> Answer:
    """A webhook, in an invocation of its own."""
    return asyncio.run(post(app, body(task), path, at=time.time()))


def asked(app: OneLoop, path: str, query: str = "", method: str = "GET") -> Answer:
    headers = [(name.lower().encode(), value.encode()) for name, value in bearer().items()]
    return asyncio.run(request(app, path, headers, method=method, query_string=query.encode()))


def test_lifespan_never(app: OneLoop, target: Target) -> None:
    """A new loop each time: stored once, handled before the reply, found by whoever asks."""
    assert [sent(app).status for _ in range(3)] == [202, 200, 200]
    assert target.handled == ["task-1"]
    assert asked(app, "/api/predictions/task-1").json["status"] == "completed"
    assert asked(app, "/readyz").status == 200
    assert b'wavehook_events_total{source="wavespeed"' in asked(app, "/metrics").body


def test_lifespan_each_time(app: OneLoop, target: Target) -> None:
    """Opened and closed around each request, on a new loop each time."""

    async def once() -> int:
        async with running(app):
            return (await post(app, body(), at=time.time())).status

    assert [asyncio.run(once()) for _ in range(4)] == [202, 200, 200, 200]
    assert target.handled == ["task-1"]


def test_lifespan_once_for_many_loops(app: OneLoop, target: Target) -> None:
    """A runtime that runs lifespan first, and brings its requests from elsewhere."""
    lifespan = AsyncExitStack()
    with asyncio.Runner() as runner:
        runner.run(lifespan.enter_async_context(running(app)))
        assert [sent(app).status for _ in range(2)] == [202, 200]
        runner.run(lifespan.aclose())


def test_connections_cut_between_two_invocations(app: OneLoop, target: Target) -> None:
    """Whatever was ended while nothing ran costs no delivery."""
    statuses = []
    for number in range(4):
        statuses.append(sent(app, f"task-{number}").status)
        assert asyncio.run(target.server.cut()) > 0

    assert statuses == [202] * 4
    assert target.handled == [f"task-{number}" for number in range(4)]


def test_who_waits_on_another_machine_finds_the_result(app: OneLoop, target: Target) -> None:
    """The ledger is told before the reply: after it the process may be frozen for ever."""
    asyncio.run(target.submitted("k1", "task-1"))
    asyncio.run(target.submitted("k2", "task-2"))

    sent(app, "task-1")
    sent(app, "task-2", f"{PATH}/{target.token({'user': 7}, 'k2')}")

    assert [asyncio.run(target.status(key)) for key in ("k1", "k2")] == ["completed"] * 2


def test_external_dispatch_leaves_handlers_to_the_schedule(
    app: OneLoop, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply waits for the ledger and for no handler; `/api/drain` runs what is due."""
    monkeypatch.setenv("WAVEHOOK_DISPATCH", "external")
    asyncio.run(target.submitted("k1", "task-1"))

    assert sent(app).status == 202
    assert target.handled == []
    assert asyncio.run(target.status("k1")) == "completed"

    assert asked(app, "/api/drain").json == {"ran": 1, "reconciled": 0, "more": False}
    assert asked(app, "/api/drain", method="POST").json["ran"] == 0
    assert target.handled == ["task-1"]


def test_a_handler_that_does_not_end_is_given_back_at_the_deadline(
    app: OneLoop, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24: the sender has its reply, and the lease is free for whoever comes next."""
    monkeypatch.setenv("WAVEHOOK_INLINE_DEADLINE", "0.3")
    (target.folder / "hang").touch()

    assert sent(app).status == 202

    dispatch = asyncio.run(target.dispatch("task-1"))
    assert (dispatch.state, dispatch.owner) == (DispatchState.PENDING, None)

    async def take() -> bool:
        async with target.store() as store:
            (found,) = await store.claim("other", {"note": 1}, 30.0, time.time())
            return await store.settle(found.dispatch, "other", Done(), time.time())

    assert asyncio.run(take())


def test_two_drains_at_once_double_nothing(
    app: OneLoop, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3: by the URL and by a function of another process, each dispatch is run by one of them."""
    monkeypatch.setenv("WAVEHOOK_DISPATCH", "external")
    tasks = [f"task-{number}" for number in range(20)]

    async def send_all() -> None:
        await asyncio.gather(*(post(app, body(task), at=time.time()) for task in tasks))

    async def drain_all() -> list[int]:
        headers = [(b"authorization", bearer()["Authorization"].encode())]
        here = request(app, "/api/drain", headers)
        there = asyncio.to_thread(drain, 20.0, environ=target.environ, cwd=target.folder)
        answer, done = await asyncio.gather(here, there)
        return [answer.json["ran"], done["ran"]]

    asyncio.run(send_all())
    assert sum(asyncio.run(drain_all())) == 20
    assert sorted(target.handled) == sorted(tasks)


def test_a_forged_webhook_opens_nothing(app: OneLoop, target: Target) -> None:
    """F4: the database is not touched before a delivery is verified."""
    forged = asyncio.run(post(app, body(), at=time.time(), secret="whsec_other"))

    assert forged.status == 401
    assert asyncio.run(target.server.cut()) == 0


def test_a_model_and_a_context_arrive(app: OneLoop, target: Target) -> None:
    """The signed bytes are stored as they came, with what was sealed into the URL."""
    sent(app, path=f"{PATH}/{target.token({'user': 'é'})}")

    event = asyncio.run(target.event("task-1"))
    assert event is not None
    assert (event.body, event.context, event.model) == (body(), {"user": "é"}, MODEL)
