"""Bodies that are too large, too slow, compressed or cut short."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from receiver.telemetry import TelemetryEvent
from receiver.web import middleware
from tests.support.asgi import (
    BODY,
    PATH,
    Connection,
    Inbox,
    Log,
    post,
    replaced,
    request,
    scope,
    serve,
    signed,
)

LIMIT = 1000


@pytest.fixture
async def small(build: Callable[..., Starlette], inbox: Inbox) -> Starlette:
    """An app that takes 1000 bytes within a moment."""
    await inbox.open()
    inbox.calls.clear()
    return build(max_body=LIMIT, body_deadline=0.02)


@pytest.mark.parametrize("value", [b"1001", b"9" * 18, b"9" * 19, b"9" * 10_000])
async def test_a_large_content_length_is_413_at_once(small: Starlette, value: bytes) -> None:
    """F8: nothing of a body that says it is too large is read."""
    connection = Connection([b"x" * 2000])
    headers = replaced(signed(), b"content-length", value)

    await serve(small, connection, scope(PATH, headers))

    assert connection.answer().status == 413
    assert connection.answer().header(b"connection") == b"close"
    assert connection.read_before_the_answer == 0


@pytest.mark.parametrize("value", [[], [b"5"], [b"-1"], [b"abc"], [b"\xb2"], [b""], [b"1", b"2"]])
async def test_a_large_body_is_413_while_it_streams(small: Starlette, value: list[bytes]) -> None:
    """F8: whatever Content-Length says, no more than the limit is read."""
    connection = Connection([b"x" * 100] * 50)
    headers = replaced(signed(), b"content-length", *value)

    await serve(small, connection, scope(PATH, headers))

    assert connection.answer().status == 413
    assert connection.answer().header(b"connection") == b"close"
    assert connection.read_before_the_answer == LIMIT // 100 + 1


async def test_a_body_of_exactly_the_limit_is_taken(small: Starlette) -> None:
    """F8: the limit itself is allowed, in one chunk or byte by byte."""
    body = b'{"id": "t", "status": "failed"}'.ljust(LIMIT)

    whole = await post(small, body)
    bytewise = await request(small, headers=signed(body), chunks=[bytes([b]) for b in body])

    assert (whole.status, bytewise.status) == (202, 200)


async def test_memory_stays_flat_while_a_body_streams(build: Callable[..., Starlette]) -> None:
    """F8: 64 MiB in large chunks, or a body of single bytes, cost about one body's memory."""
    app, limit = build(max_body=1 << 16), 1 << 16
    chunk = b"x" * 65536
    many: list[list[bytes | None]] = [[chunk] * 1024, [b"x"] * (limit + 1)]
    await post(app)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        statuses = [(await request(app, chunks=chunks)).status for chunks in many]
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    # The connection's own copy of its list of chunks is the larger part.
    assert statuses == [413, 413]
    assert peak < 4 * limit + 8 * len(many[1])


async def test_a_sender_that_still_writes_sees_its_413(
    small: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F8: after the answer the rest is read and forgotten, but not for ever."""
    monkeypatch.setattr(middleware, "LINGER_S", 0.01)
    finishing, stuck = Connection([b"x" * 2000] * 5), Connection([b"x" * 2000, None])

    for connection in (finishing, stuck):
        await serve(small, connection, scope(PATH, signed()))

    assert (finishing.answer().status, finishing.received) == (413, 5)
    assert (stuck.answer().status, stuck.received) == (413, 1)


@pytest.mark.parametrize("chunks", [[None], [b"x", None], [b"x"] * 5 + [None]])
async def test_a_slow_body_is_408(
    small: Starlette, inbox: Inbox, told: list[TelemetryEvent], chunks: list[bytes | None]
) -> None:
    """F9: a sender that stops in the middle is told so after the deadline."""
    answer = await request(small, headers=signed(), chunks=chunks)

    assert answer.status == 408
    assert answer.header(b"connection") == b"close"
    assert answer.header(b"content-type") == b"application/problem+json"
    assert (told[0].result, inbox.calls) == ("too_slow", [])


@pytest.mark.parametrize("value", [b"gzip", b"br", b"identity, gzip", b"x" * 10_000, b"\xff"])
async def test_a_compressed_body_is_415(small: Starlette, value: bytes) -> None:
    """F10: a signature is over plain bytes, so nothing is unpacked."""
    connection = Connection([BODY])
    headers = [*signed(), (b"content-encoding", value)]

    await serve(small, connection, scope(PATH, headers))

    assert connection.answer().status == 415
    assert connection.answer().header(b"connection") == b"close"
    assert connection.read_before_the_answer == 0


@pytest.mark.parametrize("value", [b"identity", b"Identity", b""])
async def test_identity_is_no_compression(small: Starlette, value: bytes) -> None:
    """F10: `identity` says that nothing was done."""
    headers = [*signed(), (b"content-encoding", value)]

    assert (await request(small, headers=headers, chunks=[BODY])).status == 202


@pytest.mark.parametrize("chunks", [[], [BODY[:10]]])
async def test_a_sender_that_leaves_gets_no_answer(
    small: Starlette, inbox: Inbox, told: list[TelemetryEvent], log: Log, chunks: list[bytes | None]
) -> None:
    """A body that was cut off is not verified, stored or answered, but counted and logged."""
    connection = Connection(chunks, complete=False)

    await serve(small, connection, scope(PATH, signed()))

    assert (connection.sent, inbox.calls) == ([], [])
    assert [(each.name, each.result) for each in told] == [("delivery.rejected", "disconnected")]
    line = log.line("request.served")
    assert (line["status"], line["result"]) == (None, "disconnected")


async def test_a_sender_that_leaves_before_the_answer_is_no_error(
    small: Starlette, inbox: Inbox, log: Log
) -> None:
    """What was stored stays stored where the answer finds nobody, and nothing is raised."""

    class Closed(Connection):
        async def send(self, message: Message) -> None:
            raise OSError("closed")

    await serve(small, Closed([BODY]), scope(PATH, signed()))

    assert inbox.calls == ["add"]
    assert log.lines("request.failed") == []
    assert log.line("request.served")["result"] == "new"
