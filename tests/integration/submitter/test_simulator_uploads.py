"""UploadStore, as a client makes them: announced, put, fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from submitter.simulator import Simulator
from submitter.simulator.uploads import MAX_UPLOAD_BYTES, UPLOAD_RETENTION_S, UploadStore
from tests.support.simulator import Asker, data, simulated


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, so that one simulator serves what changes nothing."""
    return "asyncio"


@pytest.fixture(scope="module")
async def quiet() -> AsyncIterator[Asker]:
    """Asks a simulator that nobody disturbs."""
    async with simulated() as (_, api):
        yield api


@pytest.fixture
async def storage() -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


async def announce(api: Asker, size: int, **more: Any) -> dict[str, Any]:
    query = {"filename": "first.PNG", "size": size, "content_type": "image/png", **more}
    return data(await api.post("api/v3/media/uploads", json=query))


async def test_a_file_that_was_put_can_be_fetched(storage: httpx.AsyncClient) -> None:
    """With the headers that the API named, and no key; the bytes come back with their type."""
    async with simulated() as (sim, api):
        place = await announce(api, 5)
        url = place["download_url"]
        assert url.endswith(".png")
        assert (await storage.get(url)).status_code == 404
        for body in (b"12345", b"abcde"):
            upload = place["upload"]
            put = await storage.put(upload["url"], headers=upload["headers"], content=body)
            assert put.status_code == 200
            answer = await storage.get(url)
            assert (answer.content, answer.headers["content-type"]) == (body, "image/png")
        assert (sim.calls["upload"], sim.calls["put"]) == (1, 2)


async def test_a_large_file_is_streamed_both_ways(storage: httpx.AsyncClient, quiet: Asker) -> None:
    """In chunks, without a length in the header of the PUT."""
    chunk, count = bytes(range(256)) * 256, 80

    async def body() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield chunk

    place = await announce(quiet, len(chunk) * count)
    upload = place["upload"]
    put = await storage.put(upload["url"], headers=upload["headers"], content=body())
    assert put.status_code == 200, put.text
    assert (await storage.get(place["download_url"])).content == chunk * count


@pytest.mark.parametrize(
    ("change", "content", "status", "words"),
    [
        ({"Authorization": "Bearer k"}, b"12345", 400, "Authorization"),
        ({"Content-Type": "image/jpeg"}, b"12345", 403, "content-type"),
        ({"X-Upload-Token": ""}, b"12345", 403, "x-upload-token"),
        ({"X-Client-Name": "wavehook"}, b"12345", 403, "x-client-name"),
        ({}, b"123456", 400, "5 bytes"),
        ({}, b"1234", 400, "5 bytes"),
        ({}, b"x" * 3_000_000, 400, "5 bytes"),
    ],
)
async def test_a_put_that_is_not_as_signed_is_refused(
    storage: httpx.AsyncClient,
    quiet: Asker,
    change: dict[str, str],
    content: bytes,
    status: int,
    words: str,
) -> None:
    """Nothing is kept, and the right one may still come."""
    place = await announce(quiet, 5)
    upload = place["upload"]
    headers = {**upload["headers"], **change}
    put = await storage.put(upload["url"], headers=headers, content=content)
    assert put.status_code == status
    assert words in put.text
    assert (await storage.get(place["download_url"])).status_code == 404
    right = await storage.put(upload["url"], headers=upload["headers"], content=b"12345")
    assert right.status_code == 200


@pytest.mark.parametrize("body", [[b"123", b"456"], [b"12"]])
async def test_a_body_of_another_length_is_refused_without_a_header_too(
    storage: httpx.AsyncClient, quiet: Asker, body: list[bytes]
) -> None:
    """Chunks are counted as they come."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in body:
            yield chunk

    upload = (await announce(quiet, 5))["upload"]
    put = await storage.put(upload["url"], headers=upload["headers"], content=chunks())
    assert (put.status_code, "5 bytes" in put.text) == (400, True)


async def test_a_put_whose_sender_goes_away_leaves_nothing(
    storage: httpx.AsyncClient, quiet: Asker
) -> None:
    """The file is not there, and the right PUT may still come."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"12"
        raise ConnectionError

    place = await announce(quiet, 5)
    upload = place["upload"]
    with pytest.raises(ConnectionError):
        await storage.put(upload["url"], headers=upload["headers"], content=broken())
    assert (await storage.get(place["download_url"])).status_code == 404
    right = await storage.put(upload["url"], headers=upload["headers"], content=b"12345")
    assert right.status_code == 200


@pytest.mark.parametrize(("query", "status"), [("", 403), ("?signature=%C3%A9", 403)])
async def test_a_put_needs_the_signature_of_its_url(
    storage: httpx.AsyncClient, quiet: Asker, query: str, status: int
) -> None:
    """The URL of the download is public, that of the upload is not."""
    place = await announce(quiet, 5)
    headers = place["upload"]["headers"]
    put = await storage.put(place["download_url"] + query, headers=headers, content=b"12345")
    assert put.status_code == status
    gone = await storage.put(f"{quiet.base_url}uploads/x", content=b"12345")
    assert gone.status_code == 404


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"size": 0}, "size"),
        ({"size": MAX_UPLOAD_BYTES + 1}, "size"),
        ({"size": "5"}, "size"),
        ({"filename": ""}, "filename"),
        ({"filename": 1}, "filename"),
        ({"content_type": "image/png\r\nX: y"}, "content_type"),
        ({"content_type": 1}, "content_type"),
    ],
)
async def test_a_wrong_announcement_is_refused(
    quiet: Asker, change: dict[str, Any], name: str
) -> None:
    """The refusal names the field."""
    query = {"filename": "a.png", "size": 5, **change}
    answer = await quiet.post("api/v3/media/uploads", json=query)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(name)


async def test_the_largest_file_may_be_announced_without_a_type(quiet: Asker) -> None:
    """200 MiB; a name of any kind gives no path."""
    query = {"filename": "../../etc/passwd", "size": MAX_UPLOAD_BYTES}
    place = data(await quiet.post("api/v3/media/uploads", json=query))
    assert place["upload"]["headers"]["Content-Type"] == "application/octet-stream"
    assert "passwd" not in place["download_url"]


async def test_an_upload_is_there_for_7_days(storage: httpx.AsyncClient) -> None:
    """Of life; then its bytes leave the disk with the next announcement."""
    async with simulated() as (sim, api):
        places = [await announce(api, 2), await announce(api, 2)]
        upload = places[0]["upload"]
        await storage.put(upload["url"], headers=upload["headers"], content=b"12")
        assert (await storage.get(places[0]["download_url"])).status_code == 200
        await sim.forward(UPLOAD_RETENTION_S)
        assert (await storage.get(places[0]["download_url"])).status_code == 404
        assert len(files(sim)) == 1
        await announce(api, 2)
        assert files(sim) == []


def files(sim: Simulator) -> list[Path]:
    assert sim._state is not None
    folder = sim._state.uploads._folder
    assert folder is not None
    return list(Path(folder.name).iterdir())


async def test_a_stop_deletes_what_was_uploaded(storage: httpx.AsyncClient) -> None:
    """The simulator keeps nothing."""
    async with simulated() as (sim, api):
        upload = (await announce(api, 2))["upload"]
        await storage.put(upload["url"], headers=upload["headers"], content=b"12")
        [file] = files(sim)
    assert not file.parent.exists()


def test_an_upload_does_not_show_its_signature() -> None:
    """F16: what a PUT is let in with is in no `repr`."""
    upload = UploadStore().announce("a.png", 1, "image/png", 0.0)
    assert upload.signature not in repr(upload)
    assert upload.headers["X-Upload-Token"] not in repr(upload)
