"""The `http` handler against a real server on this machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.base import Context
from receiver.handlers.http import HttpHandler, HttpSettings, create, secret_bytes, sign
from tests.support.events import event

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
NOW = 1_800_000_000.0
BODY = b'{"id": "abc", "status": "completed", "outputs": []}'


EVENT = event("abc", body=BODY, context={"job": 7}, received_at=NOW)


def context(seconds: float = 5.0, event_id: str = "wavespeed:abc:completed") -> Context:
    return Context(f"{event_id}/shop", "shop", 1, deadline=NOW + seconds)


class Request:
    """What a server was sent."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode().rstrip("\r\n").split("\r\n")
        self.line = first
        self.headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        self.names = [line.partition(":")[0].lower() for line in lines]
        self.body = body


class Shop:
    """A receiver of webhooks that answers as it is told, in order, the last one for ever."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.requests: list[Request] = []
        self.connections = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(Request(head, b"").headers["content-length"])
                self.requests.append(Request(head, await reader.readexactly(size)))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {code} X", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def shop(*answers: bytes) -> AsyncIterator[Shop]:
    made = Shop(list(answers) or [status(204)])
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/s3cret?token=t0ken"
    try:
        yield made
    finally:
        server.close()


@asynccontextmanager
async def forward(to: Shop, **settings: Any) -> AsyncIterator[HttpHandler]:
    chosen = {"url": to.url, "secret": SECRET, "allow": ["127.0.0.1"], **settings}
    handler = HttpHandler(HttpSettings.model_validate(chosen), clock=lambda: NOW)
    try:
        yield handler
    finally:
        await handler.close()


async def test_an_event_arrives_signed() -> None:
    """The request is what Standard Webhooks describes, verified here with its own arithmetic."""
    async with shop() as server, forward(server) as handler:
        assert await handler(EVENT, context()) == {"status": 204}
    (request,) = server.requests
    assert request.line == "POST /hooks/s3cret?token=t0ken HTTP/1.1"
    assert request.headers["webhook-id"] == "wavespeed:abc:completed"
    assert request.headers["webhook-timestamp"] == "1800000000"
    assert request.headers["idempotency-key"] == "wavespeed:abc:completed/shop"
    assert request.headers["content-type"] == "application/json"
    signed = b"wavespeed:abc:completed.1800000000." + request.body
    mac = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{mac}"
    sent = json.loads(request.body)
    assert sent["type"] == "prediction.completed"
    assert sent["data"]["context"] == {"job": 7}
    assert sent["data"]["prediction"] == json.loads(BODY)


def test_the_standards_own_example_is_signed_alike() -> None:
    """https://github.com/standard-webhooks/standard-webhooks: the vector of its libraries."""
    signature = sign(
        [secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_two_secrets_give_two_signatures() -> None:
    """F39: while the receiver changes its secret, both pass."""
    async with shop() as server, forward(server, secret=[SECRET, OTHER]) as handler:
        await handler(EVENT, context())
    parts = server.requests[0].headers["webhook-signature"].split(" ")
    assert len(set(parts)) == 2
    assert all(part.startswith("v1,") for part in parts)


async def test_a_retry_is_the_same_message() -> None:
    """F25: id, key and body are the same over retries; and the connection is used again."""
    answers = status(500, body=b"oops"), status(200, body=b"fine")
    async with shop(*answers) as server, forward(server) as handler:
        with pytest.raises(Retry):
            await handler(EVENT, context())
        await handler(EVENT, context())
    one, two = server.requests
    for name in ("webhook-id", "idempotency-key"):
        assert one.headers[name] == two.headers[name]
    assert one.body == two.body
    assert server.connections == 1


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
async def test_any_2xx_is_done(code: int) -> None:
    """The status is the result, for those who come `after`."""
    async with shop(status(code)) as server, forward(server) as handler:
        assert await handler(EVENT, context()) == {"status": code}


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 413, 415, 422, 451])
async def test_a_refusal_is_final(code: int) -> None:
    """F23: what the receiver refuses it will refuse again."""
    async with shop(status(code)) as server, forward(server) as handler:
        with pytest.raises(GiveUp, match=f"^HTTP {code}$"):
            await handler(EVENT, context())


@pytest.mark.parametrize("code", [302, 307, 408, 409, 425, 429, 500, 502, 503, 504])
async def test_a_passing_trouble_is_tried_again(code: int) -> None:
    """F23: the retry policy decides when; a redirect is not followed."""
    answer = status(code, "location: http://127.0.0.1:1/")
    async with shop(answer) as server, forward(server) as handler:
        with pytest.raises(Retry, match=f"^HTTP {code}$") as retry:
            await handler(EVENT, context())
    assert (retry.value.after, retry.value.pause) == (None, False)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("value", "after"),
    [("120", 120.0), ("0", 0.0), ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0)],
)
async def test_retry_after_pauses_the_handler(code: int, value: str, after: float) -> None:
    """F27: seconds or a date; all events of the handler wait, not only this one."""
    async with shop(status(code, f"Retry-After: {value}")) as server, forward(server) as handler:
        with pytest.raises(Retry) as retry:
            await handler(EVENT, context())
    assert (retry.value.after, retry.value.pause) == (after, True)


async def test_a_connection_that_breaks_is_tried_again() -> None:
    """F16: the error names the host, and nothing of the URL."""
    async with shop(b"") as server, forward(server) as handler:
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: RemoteProtocolError$"):
            await handler(EVENT, context())


async def test_a_server_that_is_gone_is_tried_again() -> None:
    """F23: no connection is a failure by policy."""
    async with shop() as server:
        pass
    async with forward(server) as handler:
        with pytest.raises(Retry, match="ConnectError"):
            await handler(EVENT, context())


async def test_the_deadline_is_the_dispatchers() -> None:
    """F24: an answer that does not come ends the run at its deadline."""
    async with shop(b"HTTP/1.1 2") as server, forward(server) as handler:
        with pytest.raises(Retry, match="ReadTimeout"):
            await handler(EVENT, context(seconds=0.1))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
async def test_an_answers_body_changes_nothing(answer: bytes) -> None:
    """F35: a 2xx is done, whatever follows it."""
    async with shop(answer) as server, forward(server) as handler:
        assert await handler(EVENT, context()) == {"status": 200}


async def test_an_inside_target_is_refused_for_good() -> None:
    """F34: a private target that `allow` does not name is never called."""
    async with shop() as server, forward(server, allow=[]) as handler:
        with pytest.raises(GiveUp, match=r"127\.0\.0\.1 is a loopback address") as refused:
            await handler(EVENT, context())
    assert server.connections == 0
    assert "t0ken" not in str(refused.value)


async def test_ids_cannot_break_out_of_their_header() -> None:
    """F17: line ends, spaces and other scripts in an id are escaped; a long one is digested."""
    id = "wavespeed:a\r\nX-Evil: 1 é\u2028.b:completed"
    async with shop() as server, forward(server) as handler:
        await handler(replace(EVENT, id=id), context(event_id=id))
        await handler(replace(EVENT, id="x" * 5000), context(event_id="x" * 5000))
    first, second = server.requests
    assert "x-evil" not in first.names
    assert first.headers["webhook-id"].isascii()
    assert json.loads(first.body)["data"]["id"] == id
    assert len(second.headers["webhook-id"]) < 100
    assert second.headers["idempotency-key"] != second.headers["webhook-id"]


async def test_headers_of_the_user_are_added() -> None:
    """Extra headers go out beside ours."""
    headers = {"Authorization": "Bearer abc", "X-Team": "video 1"}
    async with shop() as server, forward(server, headers=headers) as handler:
        await handler(EVENT, context())
    sent = server.requests[0].headers
    assert (sent["authorization"], sent["x-team"]) == ("Bearer abc", "video 1")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"url": "ftp://shop.example"}, "url: '…', expected an http or https URL"),
        ({"url": "https://u:s3cret@shop.example"}, "url: '…', expected an http or https URL"),
        ({"url": "https://"}, "url: '…', expected an http or https URL"),
        ({"url": "https://300.0.0.1/s3cret"}, "url: '…', expected an http or https URL"),
        ({"url": None}, "url: '…', expected a text"),
        ({"secret": "s3cret"}, "secret: '…', expected whsec_ and 24 to 64 bytes"),
        ({"secret": "whsec_s3cret§"}, "secret: '…', expected whsec_ and 24 to 64 bytes"),
        ({"secret": [SECRET, "s3cret"]}, "secret: '…', expected whsec_ and 24 to 64 bytes"),
        ({"secret": []}, "secret: '…', expected"),
        ({"allow": ["http://x"]}, "allow: ['http://x'], expected host, host:port"),
        (
            {"headers": {"Webhook-Id": "s3cret"}},
            "headers: '…', expected other headers than Webhook-Id",
        ),
        ({"headers": {"A": "s3cret\r\nB: 1"}}, "headers: '…', expected header names and values"),
        ({"headers": {"A B": "s3cret"}}, "headers: '…', expected header names and values"),
        ({"headers": {"A": ["s3cret"]}}, "headers: '…', expected a text"),
        ({"urls": "s3cret"}, "urls: unknown key"),
    ],
)
def test_faults_show_at_start_without_secrets(settings: dict[str, object], fault: str) -> None:
    """F16: each fault names its key and what was expected; URLs and secrets are not shown."""
    with pytest.raises(SettingsError) as error:
        create("shop", {"url": "https://shop.example", "secret": SECRET, **settings})
    assert f"handlers.shop.{fault}" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_all_faults_come_at_once() -> None:
    """What is missing says what it is."""
    with pytest.raises(SettingsError) as error:
        create("shop", {"allow": ["/"]})
    keys = [fault.partition(":")[0] for fault in error.value.faults]
    assert keys == ["handlers.shop.url", "handlers.shop.secret", "handlers.shop.allow"]
    assert "such as https://shop.example/hooks" in error.value.faults[0]


def test_settings_do_not_show_secrets() -> None:
    """F16: the repr of the settings has no URL, secret or header."""
    settings = HttpSettings.model_validate(
        {"url": "https://shop.example/s3cret", "secret": SECRET, "headers": {"A": "s3cret"}}
    )
    assert "s3cret" not in repr(settings)
    assert SECRET not in repr(settings)


async def test_a_handler_made_from_settings_closes() -> None:
    """The factory gives a handler that can be closed before its first event, and twice."""
    handler = create("shop", {"url": "https://shop.example", "secret": SECRET})
    await handler.close()
    assert await handler.close() is None  # type: ignore[func-returns-value]


async def test_a_closed_handler_opens_again() -> None:
    """F41: where the app stops and starts around every request, each event is sent."""
    async with shop(status(204), status(204)) as server, forward(server) as handler:
        for _ in range(2):
            assert await handler(EVENT, context()) == {"status": 204}
            await handler.close()
    assert len(server.requests) == 2
