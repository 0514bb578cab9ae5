"""An archive in a bucket: S3 over moto's server, and any store over obstore's own in memory.

Google Cloud Storage and Azure cannot be reached from here; they take the same way through obstore.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import MemoryStore, from_url

from receiver.errors import GiveUp, Retry
from receiver.handlers.archive import bucket as bucket_module
from receiver.handlers.archive.bucket import BucketPartialFile, BucketStorage
from receiver.handlers.archive.handler import Archive, open_storage
from receiver.handlers.archive.names import NameTemplate, OutputName
from receiver.handlers.archive.storage import PRIVATE_FOLDER, ArchiveStorage, NameTaken
from submitter.submit.files import UNKNOWN
from tests.support.misbehaving_server import Server, answering, hanging
from tests.support.outputs import (
    LARGE,
    MP4,
    NOW,
    PNG,
    File,
    context,
    event,
    giving,
    output,
    settings,
)

PIECE = 2**20
VIDEO = "2027-01-15/task-1/0.mp4"
MANIFEST = "2027-01-15/task-1/manifest.json"
HUGE = LARGE + b"\0\x60\0\x08free" + bytes(6 * 2**20)
"""More than one piece of at least 5 MiB, which S3 asks for."""

EARLY = OutputName(NameTemplate.parse("made/{index}{ext}"), {"index": "0"})
LATE = OutputName(NameTemplate.parse("made/{sha256}{ext}"), {})


class S3:
    """A bucket behind moto's server, looked at with Amazon's own client."""

    def __init__(self, url: str) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="s3cret",
        )
        self.options: dict[str, Any] = {
            "endpoint": url,
            "region": "us-east-1",
            "access_key_id": "key",
            "secret_access_key": "s3cret",
        }

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object by its key."""
        found = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        keys = [each["Key"] for each in found]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def uploads(self, bucket: str) -> list[Any]:
        """Uploads that were begun and not ended."""
        return list(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = S3(f"http://{host}:{port}")
    yield found
    found.client.close()
    server.stop()


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = "b-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.client.create_bucket(Bucket=name)
    return name


def memory(piece: int = PIECE) -> BucketStorage:
    return BucketStorage(MemoryStore(), "memory", piece)


def stored(root: BucketStorage) -> dict[str, bytes]:
    """Every object in memory."""
    paths = [each["path"] for each in obstore.list(root.store).collect()]
    return {path: bytes(obstore.get(root.store, path).bytes()) for path in paths}


@asynccontextmanager
async def archiving(root: ArchiveStorage, **more: Any) -> AsyncIterator[Archive]:
    handler = Archive(settings("s3://unused/for-the-root", **more), root, clock=lambda: NOW)
    try:
        yield handler
    finally:
        await handler.close()


async def test_outputs_in_s3(s3: S3, bucket: str) -> None:
    """A small one in one request, a large one in pieces; the manifest; each with its type."""
    root = open_storage(f"s3://{bucket}/made/here", s3.options)
    async with (
        giving(File(MP4)) as one,
        giving(File(HUGE, [5_000_000])) as two,
        archiving(root, public_url="https://cdn.example/made/here") as handler,
    ):
        made = event(output(one), output(two))
        result = await handler(made, context())
        assert await handler(made, context()) == result
        assert (len(one.received), len(two.received)) == (1, 2)
    found = s3.objects(bucket)
    assert found.keys() == {
        f"made/here/2027-01-15/task-1/{x}" for x in ("0.mp4", "1.mp4", "manifest.json")
    }
    assert found[f"made/here/{VIDEO}"] == MP4
    assert found["made/here/2027-01-15/task-1/1.mp4"] == HUGE
    assert (
        s3.client.head_object(Bucket=bucket, Key=f"made/here/{VIDEO}")["ContentType"] == "video/mp4"
    )
    assert s3.uploads(bucket) == []
    manifest = json.loads(found[f"made/here/{MANIFEST}"])
    assert [each["sha256"] for each in manifest["files"]] == [
        hashlib.sha256(data).hexdigest() for data in (MP4, HUGE)
    ]


@pytest.mark.parametrize("copy", [{}, {"copy_if_not_exists": "multipart"}])
async def test_names_by_content_in_s3(s3: S3, bucket: str, copy: dict[str, str]) -> None:
    """The name is known at the end only: a large output is copied within the bucket, once."""
    root = open_storage(f"s3://{bucket}", {**s3.options, **copy})
    async with giving(File(HUGE)) as server:
        for task in ("a", "b"):
            async with archiving(root, name="{sha256}{ext}") as handler:
                id = f"wavespeed:{task}:completed"
                await handler(event(output(server), id=id, task=task), context(event_id=id))
    name = hashlib.sha256(HUGE).hexdigest() + ".mp4"
    assert s3.objects(bucket).keys() == {
        name,
        "2027-01-15/a/manifest.json",
        "2027-01-15/b/manifest.json",
    }
    assert s3.objects(bucket)[name] == HUGE


async def test_what_is_there_in_s3_is_not_replaced(s3: S3, bucket: str) -> None:
    """F36: the store itself refuses; the same content is done, another is told."""
    root = open_storage(f"s3://{bucket}", s3.options)
    for content, done in ((MP4, True), (MP4, True), (PNG, False)):
        part = await begun(root, content, OutputName(NameTemplate.parse("made/0"), {}))
        if done:
            assert await part.keep() == "made/0"
        else:
            with pytest.raises(NameTaken):
                await part.keep()
        await part.close()
    assert s3.objects(bucket) == {"made/0": MP4}


async def test_an_upload_that_is_dropped_leaves_nothing(s3: S3, bucket: str) -> None:
    """F35: no object, and no pieces that are paid for and not seen."""
    root = open_storage(f"s3://{bucket}", s3.options)
    async with giving(File(HUGE[:-5], length=False)) as server, archiving(root) as handler:
        with pytest.raises(Retry, match="the file ends before its end"):
            await handler(event(output(server)), context())
    assert s3.objects(bucket) == {}
    assert s3.uploads(bucket) == []


async def test_a_cancelled_upload_leaves_nothing(s3: S3, bucket: str) -> None:
    """F40: a shutdown in the middle of it takes back what was sent."""
    root = open_storage(f"s3://{bucket}", s3.options)
    part = await begun(root, HUGE[:-5], EARLY)
    await part.close()
    assert s3.objects(bucket) == {}
    assert s3.uploads(bucket) == []


async def test_check_tries_the_bucket(s3: S3, bucket: str) -> None:
    """It writes, reads and deletes."""
    found = await open_storage(f"s3://{bucket}/x", s3.options).check()
    assert found == f"s3://{bucket}/x: objects can be written, read and deleted"
    assert s3.objects(bucket) == {}


async def test_a_bucket_that_is_not_there_says_so(s3: S3) -> None:
    """F16: in few words, without the URL, which may be signed."""
    root = open_storage("s3://no-such-bucket", s3.options)
    with pytest.raises(Retry) as error:
        await root.check()
    assert str(error.value) == (
        "s3://no-such-bucket: FileNotFoundError: Server returned non-2xx status code: "
        "404 Not Found NoSuchBucket"
    )


async def begun(root: ArchiveStorage, data: bytes, name: OutputName) -> BucketPartialFile:
    """A part that has this content."""
    part = await root.partial_file("key-0", name)
    assert isinstance(part, BucketPartialFile)
    await part.begin('"v1"')
    part.content.begin(data[:4096])
    for at in range(0, len(data), 2**19):
        await part.write([data[at : at + 2**19]])
    await part.flush()
    return part


@pytest.mark.parametrize("name", [EARLY, LATE])
@pytest.mark.parametrize("data", [MP4, LARGE])
async def test_the_same_again_is_done_and_another_is_not(data: bytes, name: OutputName) -> None:
    """F25, F36: small or large, of a name that is known early or late."""
    root, called = memory(), ""
    for _ in range(2):
        part = await begun(root, data, name)
        called = await part.keep()
        await part.close()
        assert stored(root) == {called: data}
    other = data[:-1] + b"\xff"
    for replaced in (other, data + b"x", PNG):
        obstore.put(root.store, called, replaced)
        part = await begun(root, data, name)
        with pytest.raises(NameTaken):
            await part.keep()
        await part.close()
        assert stored(root)[called] == replaced


async def test_of_a_large_one_that_is_there_nothing_is_uploading() -> None:
    """F25: it is read and compared."""
    root = memory()
    part = await begun(root, LARGE, EARLY)
    await part.keep()
    again = await begun(root, LARGE, EARLY)
    assert again._upload is None
    assert again._held == []
    await again.keep()
    assert stored(root) == {"made/0.mp4": LARGE}


async def test_a_part_that_begins_anew_forgets_its_upload() -> None:
    """F35: the file is another by now; what was sent of the first is no object."""
    root = memory()
    part = await begun(root, LARGE, EARLY)
    await part.begin('"v2"')
    assert stored(root) == {}
    part.content.begin(PNG)
    await part.write([PNG])
    await part.keep()
    await part.close()
    assert stored(root) == {"made/0.png": PNG}


async def test_memory_stays_bounded_while_the_bucket_is_slow() -> None:
    """F35: no more is taken than is sent."""
    root = memory()
    part = await begun(root, LARGE, EARLY)
    assert part._upload is not None
    assert sum(map(len, part._held)) + part._upload._blocks.qsize() * 2**19 <= 2**20
    await part.keep()
    assert stored(root) == {"made/0.mp4": LARGE}


class Behaving:
    """A server in the place of S3 that answers each method as it is told."""

    def __init__(self, server: Server, **answers: str) -> None:
        self.server = server
        self.answers = answers
        server.ways = [self.behave]

    async def behave(self, writer: asyncio.StreamWriter) -> None:
        request = self.server.received[-1]
        status = self.answers.get(request.method, "200 OK")
        body = b"<Error><Code>Nope</Code></Error>"
        if request.method in ("GET", "HEAD"):
            body = b"wavehook check" if request.method == "GET" else b""
        if request.method == "POST":
            # What was to be deleted, key by key, with one status over all.
            [key] = re.findall(rb"<Key>.*?</Key>", request.body)
            said = f"<Code>{status}</Code><Message>No</Message>".encode()
            body = b"<DeleteResult><Error>" + key + said + b"</Error></DeleteResult>"
            status = "200 OK"
        head = (
            f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n"
            'etag: "1"\r\nlast-modified: Fri, 15 Jan 2027 08:00:00 GMT\r\n\r\n'
        )
        writer.write(head.encode() + body)
        await writer.drain()


def standing_in(server: Server, to: str = "s3://stand-in/x", **more: Any) -> BucketStorage:
    options = {"endpoint": server.url, "access_key_id": "k", "secret_access_key": "s3cret"}
    root = open_storage(to, {**options, "timeout": "5s", **more})
    assert isinstance(root, BucketStorage)
    return root


@pytest.mark.parametrize(
    ("answers", "options"),
    [({"POST": "AccessDenied"}, {}), ({"DELETE": "403 X"}, {"disable_bulk_delete": True})],
)
async def test_a_bucket_from_which_nothing_may_be_deleted(answers: Any, options: Any) -> None:
    """Archives are often kept so; a small file stays, and that is said."""
    async with giving() as server:
        Behaving(server, **answers)
        root = standing_in(server, **options)
        found = await root.check()
        assert found.startswith("s3://stand-in/x: objects can be written and read, but not del")
        assert found.endswith(" stays")
        await root.remove("x")
        await root.forget("x")


async def test_what_is_not_there_is_removed_already() -> None:
    """As on a disk, to remove it is no fault; not every store says so."""
    root = memory()
    await root.remove("x")
    await root.forget("x")
    assert await root.read("x") is None
    assert await root.size("x") is None
    async with giving() as server:
        Behaving(server, DELETE="404 X")
        await standing_in(server, disable_bulk_delete=True).remove("x")


async def test_an_upload_that_cannot_be_taken_back_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """F40: a shutdown does not wait for a bucket that does not answer."""
    monkeypatch.setattr(bucket_module, "ABORT_TIMEOUT_S", 0.05)
    async with giving(hanging) as server:
        part = await begun(standing_in(server), MP4, EARLY)
        part._upload = bucket_module.MultipartUpload(part._bucket.store, "x", UNKNOWN, 2**20)
        await part._upload.put(bytes(2**21))
        await server.came.wait()
        upload = part._upload
        await part.close()
        with pytest.raises(asyncio.CancelledError):
            await upload._uploading


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"PUT": "403 Forbidden"}, "PermissionDeniedError: Server returned .* 403 Forbidden Nope"),
        ({"PUT": "401 X"}, "UnauthenticatedError: Server returned .* 401 .*Nope"),
        ({"GET": "403 Forbidden"}, "PermissionDeniedError: Server returned .* 403 Forbidden"),
        ({"POST": "InternalError"}, "GenericError: .*InternalError"),
    ],
)
async def test_faults_of_a_bucket_are_told_in_few_words(answers: Any, words: str) -> None:
    """F16: which bucket, what kind, the status and the store's own word; no URL, no key."""
    async with giving() as server:
        Behaving(server, **answers)
        with pytest.raises(Retry, match=f"^s3://stand-in/x: {words}") as error:
            await standing_in(server).check()
    text = str(error.value)
    assert len(text) < 200
    assert not any(word in text for word in ("http", "s3cret", "\n", "Debug"))


async def test_a_bucket_that_gives_back_another_thing() -> None:
    """What is written must be what is read."""
    date = "last-modified: Fri, 15 Jan 2027 08:00:00 GMT\r\n"
    async with giving(answering(body=b"another", headers=f'etag: "1"\r\n{date}')) as server:
        root = standing_in(server)
        with pytest.raises(Retry, match="that was read differs from what was written"):
            await root.check()


async def test_a_bucket_that_is_away_is_tried_again_by_the_dispatcher() -> None:
    """F23: obstore tries for half a minute, then the retry policy does."""
    async with giving() as server:
        Behaving(server, PUT="500 X", HEAD="404 X", GET="404 X")
        root = standing_in(server)
        fast = from_url(
            "s3://stand-in/x",
            config={"endpoint": server.url, "access_key_id": "k", "secret_access_key": "s"},
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        root.store = fast
        async with giving(File(MP4), File(HUGE)) as source, archiving(root) as handler:
            for _ in range(2):
                with pytest.raises(Retry, match=r"^output 1 of 1: s3://stand-in/x: GenericError"):
                    await handler(event(output(source)), context())


async def test_a_store_that_cannot_create_only_is_asked_before(s3: S3, bucket: str) -> None:
    """F36: by the user's own setting, for stores that know no conditions."""
    root = open_storage(f"s3://{bucket}", {**s3.options, "conditional_put": "disabled"})
    for _ in range(2):
        part = await begun(root, MP4, EARLY)
        await part.keep()
    assert s3.objects(bucket) == {"made/0.mp4": MP4}
    other = await begun(root, MP4 + b"x", EARLY)
    with pytest.raises(NameTaken):
        await other.keep()


async def test_an_event_in_a_bucket_that_has_its_names(s3: S3, bucket: str) -> None:
    """F36: told to a person, as on a disk."""
    root = open_storage(f"s3://{bucket}", s3.options)
    await root.write(VIDEO, b"another")
    async with giving(File(MP4)) as server, archiving(root) as handler:
        with pytest.raises(GiveUp, match="another file has its name"):
            await handler(event(output(server)), context())
    assert s3.objects(bucket) == {VIDEO: b"another"}


async def test_nothing_is_left_of_what_is_between_two_runs() -> None:
    """F25: the note of what is done is removed when the manifest is written."""
    root = memory()
    async with (
        giving(File(MP4)) as one,
        giving(answering("503 X"), File(PNG)) as two,
        archiving(root) as handler,
    ):
        made = event(output(one), output(two))
        with pytest.raises(Retry):
            await handler(made, context())
        assert [name for name in stored(root) if name.startswith(PRIVATE_FOLDER)] != []
        await handler(made, context())
        assert (len(one.received), len(two.received)) == (1, 2)
    assert stored(root).keys() == {VIDEO, "2027-01-15/task-1/1.png", MANIFEST}
