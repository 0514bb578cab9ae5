"""The same over real sockets: what a server and a kernel make of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from receiver.event import DispatchState
from receiver.handlers.routing import Route
from receiver.intake import Intake
from receiver.stores.sqlite import SQLiteStore
from receiver.web.app import create_app
from tests.support.asgi import BODY, EVENT_ID, NOW, PATH, Headers, Inbox, Log, post, signed

Build = Callable[..., Starlette]


@asynccontextmanager
async def served(app: ASGIApp, **settings: Any) -> AsyncIterator[int]:
    """The app on a free port of the loopback."""
    settings.setdefault("access_log", False)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, lifespan="on", ws="none", **settings
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@pytest.fixture(params=["httptools", "h11"])
async def port(request: pytest.FixtureRequest, build: Build) -> AsyncIterator[int]:
    """A receiver with a limit of 100 kB and a deadline of half a second."""
    app = build(max_body=100_000, body_deadline=0.5)
    async with served(app, http=request.param) as port:
        yield port


def head(headers: Headers, path: str = PATH) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % each for each in headers)
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (path.encode(), lines)


async def answer(port: int, sent: bytes) -> tuple[int, bytes]:
    """The status and the head of the answer; then the sender leaves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    finally:
        writer.close()
    return int(got.split(b" ", 2)[1]), got


def close(headers: Headers) -> Headers:
    return [*headers, (b"connection", b"close")]


async def test_a_genuine_webhook_is_taken(port: int) -> None:
    """The vendor's request, over a socket, is 202 and then 200 on the same connection."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        first = await client.post(PATH, headers=signed(), content=BODY)
        second = await client.post(PATH, headers=signed(), content=BODY)

    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json() == {"id": EVENT_ID, "duplicate": False}


async def test_a_large_body_is_413(port: int) -> None:
    """F8: with Content-Length at once, in chunks while streaming; the connection ends."""
    announced, got = await answer(port, head([(b"content-length", b"5000000")]))
    chunk = b"%x\r\n%b\r\n" % (10_000, b"x" * 10_000)
    streamed, _ = await answer(port, head([(b"transfer-encoding", b"chunked")]) + chunk * 11)

    assert (announced, streamed) == (413, 413)
    assert b"connection: close" in got.lower()


async def test_a_sender_that_writes_first_and_reads_later_sees_its_413(port: int) -> None:
    """F8: the answer is not lost in a reset of the connection."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 65_536

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        whole = await client.post(PATH, content=b"x" * 10_000_000)
        streamed = await client.post(PATH, content=chunks())

    assert (whole.status_code, streamed.status_code) == (413, 413)


async def test_many_slow_bodies_do_not_hold_up_others(port: int) -> None:
    """F9: 100 senders that stop in the middle get their 408, while a genuine one gets its 202."""
    slow = [asyncio.ensure_future(answer(port, head(signed()) + BODY[:9])) for _ in range(100)]
    await asyncio.sleep(0)

    status, _ = await answer(port, head(close(signed())) + BODY)

    assert status == 202
    assert not any(task.done() for task in slow)
    assert {status for status, _ in await asyncio.gather(*slow)} == {408}


async def test_a_compressed_body_is_415(port: int) -> None:
    """F10: refused before it is read."""
    status, got = await answer(port, head([*signed(), (b"content-encoding", b"gzip")]) + BODY)

    assert status == 415
    assert b"connection: close" in got.lower()


async def test_a_sender_that_disconnects_is_no_error(port: int, inbox: Inbox, log: Log) -> None:
    """A cut-off body is not stored, and the next sender is served."""
    for cut in (b"", BODY[:20]):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(signed()) + cut)
        await writer.drain()
        writer.transport.abort()
    while len(log.lines("request.served")) < 2:
        await asyncio.sleep(0.001)

    assert (await answer(port, head(close(signed())) + BODY))[0] == 202
    results = [line["result"] for line in log.lines("request.served")]
    assert results == ["disconnected", "disconnected", "new"]
    assert {line["level"] for line in log.lines()} == {"info"}


async def test_a_weird_path_is_404(port: int) -> None:
    """Nothing a stranger sends gives a 500: paths."""
    for name in ("%00", "%ff%fe", "wavespeed%0a", "..%2f..", "x" * 20_000):
        sent = head(close(signed()), f"/webhooks/{name}") + BODY
        assert (await answer(port, sent))[0] == 404, name


async def test_a_weird_token_is_401(port: int) -> None:
    """F33: nothing a stranger sends gives a 500: tokens."""
    for token in ("%00", "%ff%fe", "%0d%0aset-cookie:%20a=b", "%ED%A0%80", "x" * 20_000, "%"):
        sent = head(close(signed()), f"{PATH}/{token}") + BODY
        assert (await answer(port, sent))[0] == 401, token


async def test_what_is_no_http_is_refused(port: int) -> None:
    """Nothing a stranger sends gives a 500: what the server itself refuses."""
    start = b"POST /webhooks/wavespeed HTTP/1.1\r\nhost: a\r\n"
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /webhooks/wav\xffspeed HTTP/1.1\r\nhost: a\r\n\r\n",
        start + b"content-length: -5\r\n\r\n",
        start + b"content-length: x\r\n\r\n",
    ):
        assert (await answer(port, junk))[0] in {400, 404}, junk


async def test_the_servers_own_lines_take_our_form_and_hold_no_url(build: Build, log: Log) -> None:
    """F16: uvicorn's access line, which holds the whole URL, is not written; its others are."""
    async with served(build(), access_log=True) as port:
        await answer(port, head(close(signed()), f"{PATH}/some-token?key=secret") + BODY)

    lines = log.lines()
    assert {line.get("logger") for line in lines} == {"uvicorn.error", None}
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    assert [line["event"] for line in lines if "some-token" in json.dumps(line)] == []


async def test_stored_before_the_reply_and_waiting_for_its_handler(port: int, inbox: Inbox) -> None:
    """F1, F2: with the 202 there is an event and its dispatch."""
    await answer(port, head(close(signed())) + BODY)

    (dispatch,) = await inbox.dispatches(EVENT_ID)
    assert dispatch.state is DispatchState.PENDING


async def test_one_event_many_times_at_once_on_disk(
    log: Log, intake: Intake, tmp_path: Path
) -> None:
    """F3: of many parallel deliveries of one event exactly one is new, all name the stored one."""
    store = SQLiteStore(tmp_path / "inbox.db")
    intake = Intake(intake.sources, [Route("keep")], store)
    app = create_app(intake=intake, store=store, clock=lambda: NOW)
    async with served(app) as port:
        sent = head(close(signed())) + BODY
        answers = await asyncio.gather(*(answer(port, sent) for _ in range(50)))

    assert sorted(status for status, _ in answers) == [200] * 49 + [202]


async def test_a_body_in_many_packets_is_one_body(port: int) -> None:
    """Packets are put together before anything is believed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in (head(close(signed())), BODY[:7], BODY[7:30], BODY[30:]):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.005)

    assert (await reader.read()).startswith(b"HTTP/1.1 202")
    writer.close()


async def test_through_httpx_alone(build: Build) -> None:
    """F41: a client's own ASGI transport, which knows no lifespan, is served too."""
    app = build()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        sent = await client.post(PATH, headers=signed(), content=BODY)

    assert sent.status_code == 202
    assert (await post(app)).status == 200
