"""Uploads: a place is asked for, and the bytes are put there; over real sockets."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from submitter.api.client import ApiClient
from submitter.api.requests import MAX_UPLOAD_BYTES, ApiRequests
from submitter.errors import ApiError, AuthFailed, BadInput, SubmitterError, Unavailable
from tests.support.misbehaving_server import (
    Misbehaviour,
    Received,
    Server,
    answering,
    good,
    resetting,
    saying,
    serving,
)

pytestmark = pytest.mark.anyio

KEY = "wave-KEY-5e2a3b"
CDN = "https://cdn.example.com/a.png"
DATA = bytes(range(256)) * 1024
STORED = answering("200 OK", b"")


def place(url: str, headers: Any = None, download_url: Any = CDN) -> dict[str, Any]:
    return {"upload": {"url": url, "headers": headers}, "download_url": download_url}


@contextlib.asynccontextmanager
async def storing(*ways: Misbehaviour) -> AsyncIterator[Server]:
    """A storage apart from the API."""
    async with serving(*ways) as storage:
        yield storage


async def upload(
    storage: Server, headers: Any = None, data: bytes = DATA
) -> tuple[str, list[Received]]:
    told = place(f"{storage.url}/put/a.png?signature=PERMIT%2Fx", headers)
    async with serving(good(told)) as api, ApiClient(KEY, api.url) as calls:
        url = await calls.upload(data, filename="a.png", content_type="image/png")
    return url, api.received


async def test_an_upload() -> None:
    """The bytes go where the API says, with its headers, and without the key or who asks."""
    named = {"Content-Type": "image/png", "x-amz-acl": ["public-read"], "X-Odd": ["a", "b"]}
    async with storing(STORED) as storage:
        url, asked = await upload(storage, named)
    assert url == CDN
    [request] = asked
    assert (request.method, request.path) == ("POST", "/api/v3/media/uploads")
    assert request.json == {
        "filename": "a.png",
        "size": len(DATA),
        "content_type": "image/png",
    }
    [put] = storage.received
    assert (put.method, put.target) == ("PUT", "/put/a.png?signature=PERMIT%2Fx")
    assert put.body == DATA
    sent = [(name.lower(), value) for name, value in put.headers]
    assert sorted(sent) == [
        ("content-length", str(len(DATA))),
        ("content-type", "image/png"),
        ("host", storage.url.removeprefix("http://")),
        ("x-amz-acl", "public-read"),
        ("x-odd", "a"),
        ("x-odd", "b"),
    ]


async def test_headers_that_are_not_the_apis_to_name() -> None:
    """What HTTP itself says, and the key, are not taken from what the API names."""
    named = {
        "Host": "other.example",
        "Content-Length": "5",
        "Authorization": "Bearer x",
        "Transfer-Encoding": "chunked",
    }
    async with storing(STORED) as storage:
        await upload(storage, named)
    [put] = storage.received
    assert put.body == DATA
    assert put.header("authorization") == put.header("transfer-encoding") == []
    assert put.header("host") == [storage.url.removeprefix("http://")]


async def test_an_upload_is_put_again() -> None:
    """The same bytes go to the same place again after what may pass."""
    ways = [saying(b""), resetting, answering("503 Slow Down"), answering("429 Slow"), STORED]
    async with storing(*ways) as storage:
        url, asked = await upload(storage)
    assert url == CDN
    assert [put.body for put in storage.received] == [DATA] * 5
    assert len(asked) == 1


async def test_a_storage_that_stays_away() -> None:
    """An upload is given up on, and the error says who failed."""
    async with storing(answering("503 Slow Down")) as storage:
        with pytest.raises(Unavailable, match="from its storage"):
            await upload(storage)
    assert len(storage.received) == 5


@pytest.mark.parametrize(
    "way",
    [
        answering("403 Forbidden", b"<Error>PERMIT</Error>"),
        answering("307 Moved", b"", "location: /elsewhere\r\n"),
        answering("404 No"),
    ],
    ids=range(3),
)
async def test_a_storage_that_refuses(way: Misbehaviour) -> None:
    """A refusal is no matter of the API key, is not repeated, and is not led elsewhere."""
    async with storing(way) as storage:
        with pytest.raises(ApiError, match="storage refused") as caught:
            await upload(storage)
    assert not isinstance(caught.value, AuthFailed)
    assert len(storage.received) == 1
    assert "PERMIT" not in f"{caught.value!r} {caught.value}"


@pytest.mark.parametrize(
    "told",
    [
        place("http://10.0.0.1/put"),
        place("http://example.com/put"),
        place("ftp://example.com/put"),
        place("https://user:PERMIT@example.com/put"),
        place("https://exa\r\nmple.com/put"),
        place("https://ü.example/put"),
        place("https://example.com/" + "x" * 10_000),
        place(""),
        place("https://example.com/put", download_url=None),
        place("https://example.com/put", download_url="http://example.com/a"),
        place("https://example.com/put", headers=[]),
        place("https://example.com/put", headers={"a b": "c"}),
        place("https://example.com/put", headers={"a": "b\r\nx: PERMIT"}),
        place("https://example.com/put", headers={"a": "ü"}),
        place("https://example.com/put", headers={"a": " b"}),
        place("https://example.com/put", headers={"a": 5}),
        place("https://example.com/put", headers={"a": "b" * 10_000}),
        place("https://example.com/put", headers={f"a{i}": "b" for i in range(51)}),
        place("https://example.com/put", headers={"a": ["b"] * 51}),
        {"upload": "https://example.com/put", "download_url": CDN},
        {"download_url": CDN},
        None,
        "x",
    ],
    ids=range(23),
)
async def test_places_that_cannot_be_used(told: Any) -> None:
    """F17: an address or a header that must not be used is refused, and nothing is put there."""
    async with serving(good(told)) as api, ApiClient(KEY, api.url) as calls:
        with pytest.raises(ApiError, match="has no usable upload target") as caught:
            await calls.upload(DATA, filename="a.png", content_type="image/png")
    assert "PERMIT" not in f"{caught.value!r} {caught.value}"


async def test_a_place_whose_host_is_none() -> None:
    """F17: an address that looks like one and is none is an error of ours."""
    told = place("https://256.256.256.256/put")
    async with serving(good(told)) as api, ApiClient(KEY, api.url) as calls:
        with pytest.raises(SubmitterError):
            await calls.upload(DATA, filename="a.png", content_type="image/png")


@pytest.mark.parametrize(
    ("filename", "size", "content_type", "paths"),
    [
        ("../a.png", 1, "image/png", ["filename"]),
        (".png", 1, "image/png", ["filename"]),
        ("a\n.png", 1, "image/png", ["filename"]),
        ("a\ud800.png", 1, "image/png", ["filename"]),
        ("x" * 256, 1, "image/png", ["filename"]),
        ("a.png", 0, "image/png", ["data"]),
        ("a.png", MAX_UPLOAD_BYTES + 1, "image/png", ["data"]),
        ("a.png", 1, "image/png\r\nx: y", ["content_type"]),
        ("", 0, "", ["filename", "data", "content_type"]),
    ],
)
def test_files_that_are_not_sent(
    filename: str, size: int, content_type: str, paths: list[str]
) -> None:
    """F36: names with folders, sizes beyond the limit and odd types are refused, all at once."""
    with pytest.raises(BadInput) as caught:
        ApiRequests("https://api.wavespeed.ai", KEY).upload(filename, size, content_type)
    assert [fault.path for fault in caught.value.faults] == paths


async def test_logs_hold_no_permission(caplog: pytest.LogCaptureFixture) -> None:
    """F16: the address of an upload is a permission, and in no log line."""
    caplog.set_level(logging.DEBUG)
    async with storing(STORED) as storage:
        await upload(storage, {"x-token": "PERMIT"})
    assert f"PUT {storage.url} " in caplog.text
    assert not any(secret in caplog.text for secret in ("PERMIT", KEY))
