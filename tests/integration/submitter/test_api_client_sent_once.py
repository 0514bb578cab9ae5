"""`ApiClient.post` sends once: counted by a real server that behaves badly."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from typing import Any

import httpx
import pytest

from submitter.api.client import ApiClient
from submitter.errors import (
    ApiError,
    BadInput,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)
from submitter.prediction import Prediction
from tests.support.misbehaving_server import (
    Misbehaviour,
    Server,
    answering,
    dripping,
    endless,
    good,
    hanging,
    resetting,
    saying,
    serving,
    stopping_midway,
)

pytestmark = pytest.mark.anyio

TASK = {"id": "t1", "status": "created"}
WHOLE = json.dumps({"code": 200, "data": TASK}).encode()
HOOK = "https://hooks.example.com/webhooks/wavespeed/TOKEN"
KEY, PROMPT, NOW = "key-SECRET", "PROMPT nobody may see", 1_772_356_368.0

closing = saying(b"")
cutting = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + WHOLE)
babbling = saying(b"PROMPT this is no HTTP\r\n\r\n")


class Patient(httpx.AsyncBaseTransport):
    """The real transport; only the limit of the whole request is left."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"))
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Failing(httpx.AsyncBaseTransport):
    """Raises, in place of a network that does."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        raise self.error


async def post(server: Server, timeout: float = 60.0, **more: Any) -> Prediction:
    async with ApiClient(KEY, server.url, clock=lambda: NOW, **more) as calls:
        return await calls.post("vendor/model", {"prompt": PROMPT}, HOOK, timeout=timeout)


async def test_a_submission() -> None:
    """One POST, with the webhook percent-encoded, gives the task that the API names."""
    async with serving(good(TASK)) as server:
        prediction = await post(server)
    assert (prediction.id, prediction.status) == ("t1", "created")
    [request] = server.received
    webhook = "https%3A%2F%2Fhooks.example.com%2Fwebhooks%2Fwavespeed%2FTOKEN"
    assert request.method == "POST"
    assert request.target == f"/api/v3/vendor/model?webhook={webhook}"
    assert request.json == {"prompt": PROMPT}


@pytest.mark.parametrize(
    "way",
    [
        closing,
        resetting,
        cutting,
        babbling,
        answering("500 Oops"),
        answering("502 Bad Gateway", b"<html>"),
        answering("503 Busy"),
        answering("504 Late"),
        answering("408 Late"),
        answering("200 OK", b"<html>", "content-type: text/html\r\n"),
        answering("200 OK", b""),
        answering("200 OK", {"code": 500}),
        answering("200 OK", b"\x1f\x8bno gzip", "content-encoding: gzip\r\n"),
        answering(
            "200 OK", gzip.compress(gzip.compress(WHOLE)), "content-encoding: gzip, gzip\r\n"
        ),
        answering("200 OK", WHOLE, "content-encoding: br\r\n"),
        answering("400 Bad", {"data": TASK}),
        answering("400 Bad", TASK),
        answering("200 OK", {"data": {"id": "../t1", "status": "created"}}),
        answering("101 Switching Protocols", WHOLE),
    ],
    ids=range(19),
)
async def test_a_submission_with_a_lost_answer_is_sent_once(way: Misbehaviour) -> None:
    """F32: however the answer is lost, the server has seen one POST, and nobody is told lies."""
    async with serving(way) as server:
        with pytest.raises(SubmissionUnknown) as caught:
            await post(server)
    assert len(server.received) == 1
    assert (caught.value.model, caught.value.sent_at) == ("vendor/model", NOW)
    assert not any(word in str(caught.value) for word in ("SECRET", "PROMPT", "TOKEN"))


@pytest.mark.parametrize("way", [hanging, stopping_midway, dripping])
async def test_the_whole_time_is_limited(way: Misbehaviour) -> None:
    """F32: an answer that is not there whole when the time is over is unknown, however it drips."""
    async with serving(way) as server:
        with pytest.raises(SubmissionUnknown, match=r"no answer in 0\.3 s"):
            await post(server, timeout=0.3, transport=Patient())
    assert len(server.received) <= 1


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """F8: an answer that is too long is left, and is as good as none."""
    async with serving(endless) as server:
        with pytest.raises(SubmissionUnknown, match="longer than 2097152 bytes"):
            await post(server, max_response_bytes=2**21)
    assert len(server.received) == 1


async def test_a_small_answer_that_holds_a_huge_one() -> None:
    """F8: what counts is the size of what is unpacked."""
    packed = gzip.compress(b" " * 2**25)
    async with serving(answering("200 OK", packed, "content-encoding: gzip\r\n")) as server:
        with pytest.raises(SubmissionUnknown, match="longer"):
            await post(server, max_response_bytes=2**21)


async def test_a_compressed_answer() -> None:
    """An answer may be compressed, in the one way that was asked for."""
    packed = gzip.compress(WHOLE)
    async with serving(answering("200 OK", packed, "content-encoding: GZIP\r\n")) as server:
        assert (await post(server)).id == "t1"
    assert server.received[0].header("accept-encoding") == ["gzip"]


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (answering("429 Too Many", b"{}", "retry-after: 3\r\n"), RateLimited),
        (answering("404 Not Found", b"<html>"), NotFound),
        (answering("400 Bad", {"error": "x"}), ApiError),
        (answering("307 Moved", b"", "location: /again\r\n"), ApiError),
        (answering("302 Moved", b"", "location: /again\r\n"), ApiError),
    ],
    ids=range(5),
)
async def test_a_refused_submission_is_sent_once(
    way: Misbehaviour, kind: type[SubmitterError]
) -> None:
    """F32: a refusal, a 429 or a redirect does not send the submission again either."""
    async with serving(way) as server:
        with pytest.raises(kind):
            await post(server)
    assert len(server.received) == 1


@pytest.mark.parametrize("location", ["http://a:b/", "http://xn--/"])
async def test_a_redirect_to_nowhere_is_unknown(location: str) -> None:
    """F32: a redirect that cannot be read is an answer that cannot be read."""
    async with serving(answering("302 Moved", b"", f"location: {location}\r\n")) as server:
        with pytest.raises(SubmissionUnknown):
            await post(server)
    assert len(server.received) == 1


async def test_where_nobody_listens_nothing_was_sent() -> None:
    """A refused connection is no unknown submission."""
    async with serving(closing) as server:
        pass
    with pytest.raises(Unavailable, match="nothing was created"):
        await post(server)
    assert server.received == []


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("PROMPT"),
        httpx.ConnectTimeout("PROMPT"),
        httpx.PoolTimeout("PROMPT"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_without_a_connection_nothing_was_sent(error: Exception) -> None:
    """Nothing can have been sent before a connection stands."""
    transport = Failing(error)
    async with ApiClient(KEY, "http://127.0.0.1:1", transport=transport) as calls:
        with pytest.raises(Unavailable, match="nothing was created") as caught:
            await calls.post("vendor/model", {}, None, timeout=60)
    assert transport.count == 1
    assert "PROMPT" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("PROMPT"),
        httpx.WriteTimeout("PROMPT"),
        httpx.ReadError("PROMPT"),
        httpx.WriteError("PROMPT"),
        httpx.CloseError("PROMPT"),
        httpx.RemoteProtocolError("PROMPT"),
        httpx.LocalProtocolError("PROMPT"),
        httpx.ProxyError("PROMPT"),
        httpx.DecodingError("PROMPT"),
        httpx.InvalidURL("PROMPT"),
        ssl.SSLError("PROMPT"),
        ConnectionResetError("PROMPT"),
        TimeoutError("PROMPT"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_after_a_connection_nobody_knows(error: Exception) -> None:
    """F32: what goes wrong later may have come after the request was received."""
    transport = Failing(error)
    async with ApiClient(KEY, "http://127.0.0.1:1", transport=transport) as calls:
        with pytest.raises(SubmissionUnknown) as caught:
            await calls.post("vendor/model", {}, None, timeout=60)
    assert transport.count == 1
    assert "PROMPT" not in str(caught.value)


async def test_an_address_that_cannot_be_used() -> None:
    """F15: a base URL that looks like one and is none sends nothing."""
    async with ApiClient(KEY, "https://256.256.256.256") as calls:
        with pytest.raises(Unavailable, match="its URL is invalid"):
            await calls.post("vendor/model", {}, None, timeout=60)


async def test_cancelling_passes_through() -> None:
    """F32: a caller who goes away ends the request, which is not sent again; others go on."""
    async with serving(hanging, good(TASK)) as server, ApiClient(KEY, server.url) as calls:
        posting = asyncio.create_task(calls.post("vendor/model", {}, None, timeout=60))
        async with asyncio.timeout(30):
            await server.came.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        assert (await calls.result("t1")).id == "t1"
    assert [request.method for request in server.received] == ["POST", "GET"]


async def test_a_kept_connection_that_closes_under_the_request() -> None:
    """F32: a server that closes a used connection on a submission may have received it."""
    async with serving(good(TASK), closing) as server, ApiClient(KEY, server.url) as calls:
        await calls.result("t1")
        with pytest.raises(SubmissionUnknown):
            await calls.post("vendor/model", {}, None, timeout=60)
    assert [request.method for request in server.received] == ["GET", "POST"]


async def test_a_kept_connection_that_was_closed_before() -> None:
    """A connection that the server closed in the meantime is noticed, and not used."""
    closed = asyncio.Event()

    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        await good(TASK)(writer)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with serving(answer_and_close, good(TASK)) as server, ApiClient(KEY, server.url) as calls:
        await calls.result("t1")
        async with asyncio.timeout(30):
            await closed.wait()
        assert (await calls.post("vendor/model", {}, None, timeout=60)).id == "t1"


async def test_what_cannot_be_sent_is_not() -> None:
    """All faults of a submission come at once, and nothing goes out."""
    async with serving(good(TASK)) as server, ApiClient(KEY, server.url) as calls:
        with pytest.raises(BadInput) as caught:
            await calls.post("../delete", {"a": float("nan"), "b": "\ud800"}, None, timeout=60)
    assert [fault.path for fault in caught.value.faults] == ["model", "a", "b"]
    assert server.received == []
