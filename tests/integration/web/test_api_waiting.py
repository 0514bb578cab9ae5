"""Long polls over real sockets: woken by events, ended by time, departure and failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from receiver.errors import StoreUnavailable
from receiver.intake import Intake
from receiver.results.long_poll import ResultWaiters
from receiver.stores.base import Store
from receiver.stores.sqlite import SQLiteStore
from receiver.web.api import result_routes
from receiver.web.app import create_app
from tests.integration.web.test_over_uvicorn import served
from tests.support.asgi import NOW, PATH, Inbox, Log, signed
from tests.support.waiting import until

TOKEN = "admin"
HEADERS = {"authorization": f"Bearer {TOKEN}"}


class Receiver:
    """A receiver with the API on a store."""

    def __init__(self, like: Intake, store: Store, *, poll: float, waiting: int = 1000) -> None:
        self.results = ResultWaiters(store, poll=poll)
        stored = [lambda accepted: self.results.stored(accepted.event)]
        intake = Intake(like.sources, [], store, stored=stored)
        self.app: Starlette = create_app(intake=intake, store=store, clock=lambda: NOW)
        lifecycle = self.app.state.lifecycle
        self.app.router.routes += result_routes(self.results, TOKEN, lifecycle, max_waiting=waiting)

    @asynccontextmanager
    async def serving(self, http: str = "httptools") -> AsyncIterator[httpx.AsyncClient]:
        """Serve, and give a client; waits end before the server does."""
        async with served(self.app, http=http) as port:
            base = f"http://127.0.0.1:{port}"
            try:
                async with httpx.AsyncClient(base_url=base, headers=HEADERS, timeout=60) as client:
                    yield client
            finally:
                self.results.close()

    @property
    def waiting(self) -> int:
        return self.results._count


@pytest.fixture
def receiver(intake: Intake, inbox: Inbox, log: Log) -> Receiver:
    """Looks by itself in an hour: what a test sees was told."""
    return Receiver(intake, inbox, poll=3600)


async def webhook(client: httpx.AsyncClient, task: str = "t1", status: str = "completed") -> None:
    body = json.dumps({"id": task, "status": status, "model": "m"}).encode()
    answer = await client.post(PATH, content=body, headers=dict(signed(body, message=task)))
    assert answer.status_code == 202


def poll(
    client: httpx.AsyncClient, path: str = "/t1", **query: Any
) -> asyncio.Task[httpx.Response]:
    asking = client.get(f"/api/predictions{path}", params={"wait": 60} | query)
    return asyncio.create_task(asking)


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_webhook_answers_who_waits_for_it(receiver: Receiver, http: str) -> None:
    """A long poll ends with the result as soon as it is stored, on either HTTP parser."""
    async with receiver.serving(http) as client:
        one, other, news = poll(client), poll(client, "/t2"), poll(client, "", after=0)
        await until(lambda: receiver.waiting == 3)
        await webhook(client)

        assert (await one).json()["event_id"] == "wavespeed:t1:completed"
        assert (await news).json()["cursor"] == 1
        assert not other.done()
        await webhook(client, "t2", "failed")
        assert (await other).json()["status"] == "failed"


async def test_a_wait_ends_in_time_with_nothing(receiver: Receiver) -> None:
    """204, and the same cursor again: a client asks once more."""
    async with receiver.serving() as client:
        one = await poll(client, wait=0.001)
        news = await poll(client, "", wait=0.001, after=0)

    assert (one.status_code, one.content) == (204, b"")
    assert (news.status_code, news.json()) == (200, {"cursor": 0, "predictions": []})


async def test_a_reader_is_given_every_result_once(receiver: Receiver) -> None:
    """F28: a feed by cursor, over many connections and pages, has no gap and no repeat."""
    tasks = [f"t{number}" for number in range(30)]
    async with receiver.serving() as client:
        cursor = (await client.get("/api/predictions")).json()["cursor"]

        async def send() -> None:
            for task in tasks:
                await webhook(client, task)

        sending = asyncio.create_task(send())
        found: list[str] = []
        async with asyncio.timeout(60):
            while len(found) < len(tasks):
                answer = (await poll(client, "", after=cursor, limit=3)).json()
                cursor = answer["cursor"]
                found += [each["id"] for each in answer["predictions"]]
        await sending

    assert found == tasks


async def test_a_client_that_leaves_ends_its_wait(receiver: Receiver, log: Log) -> None:
    """Nothing is kept for who has gone, and it is no error."""
    async with receiver.serving() as client:
        leaving, reading, staying = poll(client), poll(client, "", after=0), poll(client)
        await until(lambda: receiver.waiting == 3)
        leaving.cancel()
        reading.cancel()
        await until(lambda: receiver.waiting == 1)
        await webhook(client)
        assert (await staying).status_code == 200

    results = [line.get("result") for line in log.lines("request.served")]
    assert sorted(map(str, results)) == ["None", "disconnected", "disconnected", "new"]
    assert {line["level"] for line in log.lines()} == {"info"}


async def test_no_more_than_so_many_wait(intake: Intake, inbox: Inbox, log: Log) -> None:
    """The next one is 503; who does not wait is answered, and a place that is left is free."""
    receiver = Receiver(intake, inbox, poll=3600, waiting=2)
    async with receiver.serving() as client:
        waits = [poll(client), poll(client, "", after=0)]
        await until(lambda: receiver.waiting == 2)

        refused = [await poll(client), await poll(client, "", after=0)]
        assert [answer.status_code for answer in refused] == [503, 503]
        assert refused[0].headers["retry-after"] == "5"
        assert (await client.get("/api/predictions/t1")).status_code == 204
        await webhook(client)
        assert {answer.status_code for answer in await asyncio.gather(*waits)} == {200}

        again = poll(client, "/t2")
        await until(lambda: receiver.waiting == 1)
        await webhook(client, "t2")
        assert (await again).status_code == 200


async def test_a_store_that_fails_ends_the_waits(
    intake: Intake, inbox: Inbox, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: 503 to all who wait, with the time to come again."""
    receiver = Receiver(intake, inbox, poll=0.01)

    async def fail() -> int:
        raise StoreUnavailable("disk full", 7)

    async with receiver.serving() as client:
        waits = [poll(client), poll(client, "", after=0)]
        await until(lambda: receiver.waiting == 2)
        monkeypatch.setattr(inbox, "last_seq", fail)
        answers = await asyncio.gather(*waits)

    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.headers["retry-after"] for answer in answers} == {"7"}


async def test_results_of_another_process_on_the_same_file(
    intake: Intake, log: Log, tmp_path: Path
) -> None:
    """F22: the webhook goes to one receiver, the caller waits at another."""
    one = Receiver(intake, SQLiteStore(tmp_path / "inbox.db"), poll=3600)
    two = Receiver(intake, SQLiteStore(tmp_path / "inbox.db"), poll=0.01)
    async with one.serving() as here, two.serving() as there:
        waits = [poll(there), poll(there, "", after=0)]
        await until(lambda: two.waiting == 2)
        await webhook(here)
        single, news = await asyncio.gather(*waits)

    assert news.json() == {"cursor": 1, "predictions": [single.json()]}


async def test_a_stop_of_the_results_ends_the_waits(receiver: Receiver) -> None:
    """F40: nothing yet, at once, and the client may ask another receiver."""
    async with receiver.serving() as client:
        waits = [poll(client), poll(client, "", after=0)]
        await until(lambda: receiver.waiting == 2)
        receiver.results.close()
        answers = await asyncio.gather(*waits)

    assert [answer.status_code for answer in answers] == [204, 200]
