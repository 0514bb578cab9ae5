"""Results of a receiver elsewhere: by long poll, from a server that may misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, Ledger, Result, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import Prediction
from submitter.results import receiver_feed as feed_module
from submitter.results.receiver_feed import EMPTY_RESPONSE_PAUSE_S, ReceiverFeed
from tests.support.cuttable_transport import BOTH_LEDGERS, NOW, intended, intent
from tests.support.misbehaving_server import (
    Misbehaviour,
    Server,
    answering,
    hanging,
    resetting,
    saying,
    serving,
)
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

TOKEN = "admin-TOKEN-77"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures follow each other at once."""
    monkeypatch.setattr(feed_module, "MIN_RETRY_INTERVAL_S", 0.001)


def item(task_id: str, **more: Any) -> dict[str, Any]:
    prediction = {"id": task_id, "status": "completed", "outputs": ["https://o.example/1"]}
    return {"id": task_id, "status": "completed", "prediction": prediction, **more}


def page(cursor: Any, *items: Any) -> Misbehaviour:
    return answering(body={"cursor": cursor, "predictions": list(items)})


NOTHING = answering("204 No Content")


async def accepted(ledger: Ledger, *keys: str) -> None:
    for key in keys:
        await intended(ledger, intent(key, NOW), NOW)
        await ledger.accept(key, Prediction(f"t-{key}", "created"), NOW, expected_at=NOW)


@asynccontextmanager
async def fed(ledger: Ledger, *ways: Misbehaviour) -> AsyncIterator[tuple[ReceiverFeed, Server]]:
    """A feed that runs, and the receiver that it asks."""
    async with serving(*ways) as server:
        feed = ReceiverFeed(f"{server.url}/", TOKEN, ledger, clock=lambda: NOW + 1)
        running = asyncio.create_task(feed.run())
        try:
            yield feed, server
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await feed.close()


async def finished(ledger: Ledger, key: str) -> Entry:
    async with asyncio.timeout(20):
        while (entry := (await ledger.find([key]))[key]).state is not State.FINISHED:
            await asyncio.sleep(0.005)
    return entry


def targets(server: Server) -> list[str]:
    return [request.target for request in server.received]


@BOTH_LEDGERS
async def test_results_are_heard_of(ledger: Ledger) -> None:
    """From the present cursor on, each page goes on where the one before ended."""
    await accepted(ledger, "a", "b")
    ways = [page(5), page(6, item("t-a")), page(9, item("t-strange"), item("t-b")), hanging]
    async with fed(ledger, *ways) as (_, server):
        entries = [await finished(ledger, key) for key in "ab"]
        await until(lambda: len(server.received) == 4)
    assert all(entry.delivered for entry in entries)
    assert entries[0].prediction is not None
    assert entries[0].prediction.outputs == ("https://o.example/1",)
    base = "/api/predictions"
    polls = [f"{base}?after={cursor}&wait=30" for cursor in (5, 6, 9)]
    assert targets(server) == [base, *polls]
    assert server.received[0].header("authorization") == [f"Bearer {TOKEN}"]


async def test_a_result_that_came_before(ledger: Ledger) -> None:
    """A task is asked for once its successors are heard of, so that nothing falls between."""
    await accepted(ledger, "a")
    async with serving(page(5), answering(body=item("t-a")), hanging) as server:
        feed = ReceiverFeed(server.url, TOKEN, ledger)
        feed.ask("t-a")
        looking = asyncio.create_task(feed._query_tasks())
        await asyncio.sleep(0.02)
        assert server.received == []
        await feed._listen()
        await looking
        await feed.close()
    assert (await finished(ledger, "a")).delivered
    assert targets(server) == ["/api/predictions", "/api/predictions/t-a"]


async def test_a_task_that_has_not_ended(ledger: Ledger) -> None:
    """Nothing yet is an answer; it is not asked again."""
    async with serving(page(5), NOTHING) as server:
        feed = ReceiverFeed(server.url, TOKEN, ledger)
        await feed._listen()
        feed.ask("t a/b")
        await feed._query_tasks()
        assert not feed._to_query
        await feed.close()
    assert targets(server)[1] == "/api/predictions/t%20a%2Fb"


async def test_a_task_that_could_not_be_asked_for(ledger: Ledger) -> None:
    """A receiver that was away is asked again, about what it was not asked before."""
    await accepted(ledger, "a")
    single = [resetting, answering("503 Busy"), answering(body=item("t-a"))]
    news = [page(5), hanging]

    async def by_path(writer: asyncio.StreamWriter) -> None:
        await (single if server.received[-1].path.endswith("t-a") else news).pop(0)(writer)

    async with fed(ledger, by_path) as (feed, server):
        feed.ask("t-a")
        await finished(ledger, "a")
    assert single == []


@pytest.mark.parametrize(
    "way",
    [
        answering("401 Unauthorized"),
        answering("404 Not Found"),
        answering("500 Oops", b"SECRET"),
        answering("307 Moved", headers="location: https://elsewhere.example/\r\n"),
        answering(body=b"<html>"),
        answering(body=b"\xff\xfe"),
        answering(body=b"[" * 100_000),
        answering(body=[1]),
        answering(body={"cursor": 5}),
        page("5"),
        page(True),
        page(None),
        NOTHING,
        resetting,
        saying(b"SECRET no HTTP\r\n\r\n"),
    ],
    ids=range(15),
)
async def test_a_receiver_that_misbehaves(
    ledger: Ledger, way: Misbehaviour, caplog: pytest.LogCaptureFixture
) -> None:
    """F16: it is tried again, from where it was; the log says so once, without the token."""
    caplog.set_level(logging.INFO)
    await accepted(ledger, "a")
    ways = [way, way, page(5), way, way, page(6, item("t-a")), hanging]
    async with fed(ledger, *ways) as (_, server):
        await finished(ledger, "a")
    polls = [target for target in targets(server) if "after" in target]
    assert set(polls[:3]) == {"/api/predictions?after=5&wait=30"}
    assert caplog.text.count("feed.failed") == 2
    assert TOKEN not in caplog.text
    assert "SECRET" not in caplog.text


async def test_a_wrong_token_is_told_as_such(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting."""
    async with fed(ledger, answering("401 Unauthorized"), hanging) as (_, server):
        await until(lambda: len(server.received) == 2)
    assert "WAVEHOOK_ADMIN_TOKEN" in caplog.text


async def test_a_token_that_is_no_header(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """F17: no token makes an error that quotes it."""
    for token in ("zwölf-SECRET", "two\r\nSECRET: lines"):
        feed = ReceiverFeed("http://127.0.0.1:9", token, ledger)
        running = asyncio.create_task(feed.run())
        await until(lambda: "feed.failed" in caplog.text)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await feed.close()
        assert "SECRET" not in caplog.text
        caplog.clear()


async def test_items_that_are_none(ledger: Ledger) -> None:
    """What is no result is passed over; of a purged one it is known how it ended."""
    await accepted(ledger, "a", "b")
    purged = {"id": "t-b", "status": "failed", "prediction": None}
    running = item("t-a", prediction={"id": "t-a", "status": "processing"})
    garbage = [None, 5, {}, {"prediction": [1]}, {"id": 7, "status": "x"}, running]
    async with fed(ledger, page(5), page(6, *garbage, purged), hanging):
        assert (await finished(ledger, "b")).status == "failed"
    assert (await ledger.find(["a"]))["a"].state is State.ACCEPTED


class Failing(MemoryLedger):
    """Cannot be written at first."""

    failures = 2

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable("the disk is full")
        return await super().finish(results, now)


async def test_a_ledger_that_is_away() -> None:
    """F20: what could not be written is asked for again."""
    ledger = Failing()
    await ledger.open()
    await accepted(ledger, "a")
    again = page(6, item("t-a"))
    async with fed(ledger, page(5), again, again, again, hanging) as (_, server):
        await finished(ledger, "a")
        await until(lambda: len(server.received) == 5)
    assert [target.partition("after=")[2] for target in targets(server)] == [
        "",
        "5&wait=30",
        "5&wait=30",
        "5&wait=30",
        "6&wait=30",
    ]


async def test_a_receiver_that_does_not_hold_the_question(ledger: Ledger) -> None:
    """A server that answers at once with nothing is not asked in a circle."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with fed(ledger, page(5)) as (_, server):
        await until(lambda: len(server.received) == 3)
        await asyncio.sleep(0.1)
        assert len(server.received) <= (loop.time() - began) / EMPTY_RESPONSE_PAUSE_S + 2
