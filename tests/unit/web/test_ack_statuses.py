"""Every status of the design's table."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.fernet import Fernet
from starlette.applications import Starlette

from receiver.event import PARKED
from receiver.telemetry import TelemetryEvent
from submitter.submit.context_token import Seal
from tests.support.asgi import (
    BODY,
    EVENT_ID,
    NOW,
    OLD_SECRET,
    OTHER_SECRET,
    PATH,
    SECRET,
    Answer,
    Inbox,
    post,
    replaced,
    request,
    signature,
    signed,
)
from tests.support.paths import VALID_SIGNATURES

DIGEST = signature(BODY, "msg-1", NOW, SECRET).encode()
UNREADABLE = {
    "not JSON": b"{",
    "empty": b"",
    "NaN": b'{"id": "x", "status": "completed", "n": NaN}',
    "1e400": b'{"id": "x", "status": "completed", "n": 1e400}',
    "duplicate keys": b'{"id": "x", "status": "completed", "id": "y"}',
    "depth 100,000": b"[" * 100_000,
    "huge integer": b'{"id": "x", "status": "completed", "n": ' + b"9" * 5000 + b"}",
    "lone surrogate": rb'{"id": "x", "status": "completed", "error": "\ud800"}',
    "not UTF-8": b'{"id": "x", "status": "completed", "error": "\xff\xfe"}',
    "an array": b"[1, 2]",
}
BAD_SIGNATURES = {
    "empty": b"",
    "no comma": b"v3" + DIGEST,
    "another version": b"v1," + DIGEST,
    "odd length": b"v3," + DIGEST[:-1],
    "too short": b"v3," + DIGEST[:-2],
    "not hex": b"v3," + b"z" * 64,
    "not ASCII": b"v3," + b"\xff" * 64,
    "wrong": b"v3," + b"0" * 64,
    "1 MB": b"v3," + b"0" * 1_000_000,
    "NUL": b"v3," + DIGEST + b"\x00",
    "many": b" ".join([b"v3," + b"0" * 64] * 1000),
}


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.header(b"content-type") == b"application/problem+json"
    assert set(answer.json) == {"type", "title", "status", "request_id"}
    assert answer.json["status"] == status
    assert answer.json["request_id"].encode() == answer.header(b"x-request-id")


async def test_a_new_event_is_stored_and_answered_202(app: Starlette, inbox: Inbox) -> None:
    """A new event is on disk when its 202 is sent."""
    answer = await post(app)

    assert answer.status == 202
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"connection") is None
    assert answer.json == {"id": EVENT_ID, "duplicate": False}
    stored = await inbox.event(EVENT_ID)
    assert stored is not None
    assert (stored.body, stored.received_at) == (BODY, NOW)


async def test_the_same_event_again_is_answered_200(app: Starlette) -> None:
    """F5: inside the window a captured event is a duplicate."""
    await post(app)

    answer = await post(app)

    assert answer.status == 200
    assert answer.json == {"id": EVENT_ID, "duplicate": True}


@pytest.mark.parametrize("skew", [-301, 301, -(10**8), 10**8])
async def test_outside_the_window_is_401(
    app: Starlette, inbox: Inbox, told: list[TelemetryEvent], skew: int
) -> None:
    """F5, F6: a captured event is refused later, and a clock that runs ahead is no way around."""
    answer = await post(app, at=NOW - skew)

    assert_problem(answer, 401)
    assert inbox.calls == []
    assert (told[0].name, told[0].result, told[0].skew) == ("delivery.rejected", "stale", skew)


@pytest.mark.parametrize("vector", VALID_SIGNATURES, ids=lambda vector: vector["name"])
async def test_every_vector_signed_now_is_accepted_once(
    app: Starlette, inbox: Inbox, vector: dict[str, Any]
) -> None:
    """Every documented shape of a webhook is stored, and its retry is a duplicate."""
    body = base64.b64decode(vector["body_base64"])
    message = vector["webhook_id"]

    first = await post(app, body, message=message)
    second = await post(app, body, message=message)

    assert (first.status, second.status) == (202, 200)
    assert first.json["id"] == second.json["id"]
    stored = await inbox.event(first.json["id"])
    assert stored is not None
    assert stored.body == body


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_signed_body_that_is_not_understood_is_parked(
    app: Starlette, inbox: Inbox, body: bytes
) -> None:
    """F11, F12: a signed event is never lost, and never a 500."""
    answer = await post(app, body)

    assert answer.status == 202
    stored = await inbox.event(answer.json["id"])
    assert stored is not None
    assert (stored.type, stored.body) == (PARKED, body)


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_unsigned_body_that_is_not_understood_is_401(
    app: Starlette, inbox: Inbox, body: bytes
) -> None:
    """F4, F11, F12: what is not signed is not looked at."""
    answer = await request(app, headers=replaced(signed(), b"content-length"), chunks=[body])

    assert_problem(answer, 401)
    assert inbox.calls == []


@pytest.mark.parametrize("value", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES.keys())
async def test_a_bad_signature_header_is_401(app: Starlette, inbox: Inbox, value: bytes) -> None:
    """F13: whatever the header holds, the answer is 401, and nothing was touched."""
    headers = replaced(signed(), b"webhook-signature", value)

    answer = await request(app, headers=headers, chunks=[BODY])

    assert_problem(answer, 401)
    assert inbox.calls == []


@pytest.mark.parametrize(
    "values",
    [
        [b"v1,x v3," + b"0" * 64 + b" v3," + DIGEST],
        [b"v3," + b"0" * 64, b"v3," + DIGEST],
        [b"v3," + DIGEST.upper()],
    ],
    ids=["a list", "repeated", "upper case"],
)
async def test_one_valid_signature_among_others_is_enough(
    app: Starlette, values: list[bytes]
) -> None:
    """F13: a genuine signature among others is accepted."""
    headers = replaced(signed(), b"webhook-signature", *values)

    assert (await request(app, headers=headers, chunks=[BODY])).status == 202


@pytest.mark.parametrize("name", [b"webhook-id", b"webhook-timestamp", b"webhook-signature"])
async def test_a_missing_header_is_401(app: Starlette, name: bytes) -> None:
    """F13: without one of its headers a delivery is unverified."""
    answer = await request(app, headers=replaced(signed(), name), chunks=[BODY])

    assert_problem(answer, 401)


async def test_every_401_looks_the_same(app: Starlette, seal: Seal) -> None:
    """Nobody can find the right half of a forgery from the answers."""
    token = seal.seal(None, model="someone/else", now=NOW)
    answers = [
        await request(app, chunks=[BODY]),
        await post(app, secret="whsec_guess"),
        await post(app, at=NOW - 1000),
        await post(app, path=f"{PATH}/forged"),
        await post(app, path=f"{PATH}/{token}"),
        await request(app, headers=replaced(signed(), b"webhook-id", b"\xff"), chunks=[BODY]),
    ]

    shapes = set()
    for answer in answers:
        assert_problem(answer, 401)
        names = tuple(name for name, _ in answer.headers)
        shapes.add((answer.json["type"], answer.json["title"], names))
    assert len(shapes) == 1


async def test_a_sealed_context_comes_with_the_event(
    app: Starlette, inbox: Inbox, seal: Seal
) -> None:
    """A token of ours in the URL is opened, and its context stored beside the event."""
    token = seal.seal({"job": 7}, model="kwaivgi/kling-v2.1-i2v-standard", now=NOW)

    answer = await post(app, path=f"{PATH}/{token}")

    assert answer.status == 202
    stored = await inbox.event(EVENT_ID)
    assert stored is not None
    assert stored.context == {"job": 7}


async def test_a_token_that_is_not_ours_is_401(app: Starlette, inbox: Inbox, seal: Seal) -> None:
    """F33: forged, foreign, moved, expired and altered tokens are refused."""
    foreign = Seal([Fernet.generate_key().decode()]).seal(1, model=None, now=NOW)
    ours = seal.seal(1, model=None, now=NOW)
    tokens = [
        foreign,
        seal.seal(1, model="another/model", now=NOW),
        seal.seal(1, model=None, now=NOW - 9 * 86400),
        ours[:-8] + ours[-4:] + ours[-8:-4],
        "\x00",
        "\udcff\udcfe",
        "%",
        "x" * 100_000,
        "\r\nset-cookie: a=b",
    ]

    answers = [await post(app, path=f"{PATH}/{token}") for token in tokens]

    assert [answer.status for answer in answers] == [401] * len(tokens)
    assert inbox.calls == []


async def test_a_source_does_not_take_another_ones_secret(app: Starlette) -> None:
    """F19: signed with another source's secret is 401, and ids carry the source."""
    assert_problem(await post(app, path="/webhooks/other"), 401)
    assert_problem(await post(app, secret=OTHER_SECRET), 401)

    mine = await post(app)
    theirs = await post(app, path="/webhooks/other", secret=OTHER_SECRET)

    assert (mine.status, theirs.status) == (202, 202)
    assert mine.json["id"] != theirs.json["id"]


async def test_old_and_new_secret_both_pass(app: Starlette) -> None:
    """F39: a secret that is rotated while events are in flight loses none."""
    new = await post(app)
    old = await post(app, BODY.replace(b"task-1", b"task-2"), secret=OLD_SECRET)

    assert (new.status, old.status) == (202, 202)


async def test_type_and_model_come_from_the_signed_body(app: Starlette, inbox: Inbox) -> None:
    """F18: headers and query decide nothing."""
    headers = [*signed(), (b"x-event-type", b"prediction.failed"), (b"webhook-type", b"other")]

    answer = await request(
        app, headers=headers, chunks=[BODY], query_string=b"type=prediction.failed&source=other"
    )

    stored = await inbox.event(answer.json["id"])
    assert stored is not None
    assert (stored.source, stored.type) == ("wavespeed", "prediction.completed")
    assert stored.model == "kwaivgi/kling-v2.1-i2v-standard"


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/nobody",
        "/webhooks/nobody/token",
        "/webhooks/\x00",
        "/webhooks/wavespeed\n",
        "/webhooks/\udcff",
        "/webhooks/..",
        "/webhooks/" + "x" * 100_000,
    ],
    ids=["plain", "token", "NUL", "newline", "not UTF-8", "dots", "long"],
)
async def test_an_unknown_source_is_404(app: Starlette, inbox: Inbox, path: str) -> None:
    """A name that is not configured is told so before its body is read."""
    answer = await request(app, path, signed(), [BODY])

    assert_problem(answer, 404)
    assert answer.header(b"connection") == b"close"
    assert inbox.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "//",
        "/webhooks",
        "/webhooks/",
        f"{PATH}/",
        f"{PATH}/a/b",
        "/../etc/passwd",
        "/\x00",
    ],
)
async def test_elsewhere_is_404(app: Starlette, path: str) -> None:
    """Any other path is 404, and no redirect takes a delivery elsewhere."""
    assert_problem(await request(app, path, signed(), [BODY]), 404)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "ABRAKADABRA"]
)
@pytest.mark.parametrize("path", [PATH, f"{PATH}/token"])
async def test_another_method_is_405(app: Starlette, path: str, method: str) -> None:
    """Only POST delivers, and the answer says so."""
    answer = await request(app, path, method=method)

    assert_problem(answer, 405)
    assert answer.header(b"allow") == b"POST"


async def test_http_2_gets_no_connection_header(app: Starlette) -> None:
    """HTTP/2 has no such header, and a server would fail on it."""
    answer = await request(app, "/webhooks/nobody", http_version="2")

    assert_problem(answer, 404)
    assert answer.header(b"connection") is None


async def test_a_deliverys_hook_names_its_source_only_where_it_is_ours(
    app: Starlette, told: list[TelemetryEvent]
) -> None:
    """F17: a stranger's path is no label."""
    await post(app, path="/webhooks/whatever")
    await post(app)

    assert [(each.name, each.source, each.result, each.status) for each in told] == [
        ("delivery.rejected", None, "unknown_source", 404),
        ("delivery.accepted", "wavespeed", "new", 202),
    ]
    assert told[1].event_id == EVENT_ID
    assert told[1].type == "prediction.completed"
    assert told[1].seconds is not None
