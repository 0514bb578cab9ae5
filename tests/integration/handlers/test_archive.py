"""The `archive` handler against a real server on this machine, into a folder of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry
from receiver.handlers.archive.storage import PRIVATE_FOLDER
from submitter.prediction import JSON
from tests.support.misbehaving_server import Misbehaviour, answering
from tests.support.outputs import (
    ID,
    LARGE,
    MP4,
    NOW,
    PNG,
    File,
    archive,
    context,
    event,
    files,
    giving,
    output,
)

VIDEO = "2027-01-15/task-1/0.mp4"
PICTURE = "2027-01-15/task-1/1.png"
MANIFEST = "2027-01-15/task-1/manifest.json"


def kept(folder: Path) -> dict[str, bytes]:
    """Every file but the archive's own."""
    return {
        name: data for name, data in files(folder).items() if not name.startswith(PRIVATE_FOLDER)
    }


async def test_every_output_is_kept(tmp_path: Path) -> None:
    """Whole, under its name, with a manifest; the result says what is where."""
    base = "https://cdn.example/made"
    async with giving(File()) as one, giving(File(PNG, etag=None)) as two:
        async with archive(tmp_path, public_url=base) as handler:
            result = await handler(event(output(one), output(two)), context())
        urls = [output(one), output(two)]
    sums = [hashlib.sha256(data).hexdigest() for data in (MP4, PNG)]
    found = files(tmp_path)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == {VIDEO: MP4, PICTURE: PNG}
    shared: list[dict[str, JSON]] = [
        {
            "source": urls[0],
            "name": VIDEO,
            "size": len(MP4),
            "sha256": sums[0],
            "type": "video/mp4",
        },
        {
            "source": urls[1],
            "name": PICTURE,
            "size": len(PNG),
            "sha256": sums[1],
            "type": "image/png",
        },
    ]
    assert result == {"files": [{**each, "url": f"{base}/{each['name']}"} for each in shared]}
    at = "2027-01-15T08:00:00Z"
    assert manifest["files"] == [
        {**each, "index": index, "kept_at": at} for index, each in enumerate(shared)
    ]
    assert manifest["kept_at"] == at


async def test_a_manifest_has_what_the_prediction_was(tmp_path: Path) -> None:
    """The prediction as it came, and the context: what is wanted beside a video years later."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        made = event(output(server), context={"user": 7})
        await handler(made, context())
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["type"] == "prediction.completed"
    assert manifest["data"]["id"] == ID
    assert manifest["data"]["context"] == {"user": 7}
    assert manifest["data"]["prediction"] == json.loads(made.body)


async def test_the_manifest_may_lie_elsewhere(tmp_path: Path) -> None:
    """F16: it holds prompt and context; where the files are public, it need not be."""
    async with giving(File()) as server:
        async with archive(tmp_path, manifest="private/{task}.json") as handler:
            result = await handler(event(output(server)), context())
            assert await handler(event(output(server)), context()) == result
        assert len(server.received) == 1
    assert set(files(tmp_path)) == {VIDEO, "private/task-1.json"}


async def test_without_a_base_there_is_no_link(tmp_path: Path) -> None:
    """The path on this machine helps nobody elsewhere."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        result = await handler(event(output(server)), context())
    assert '"url": null' in json.dumps(result)


@pytest.mark.parametrize(
    "made",
    [
        event("https://x.invalid/a.mp4", type="prediction.failed"),
        event("https://x.invalid/a.mp4", type="prediction.processing"),
        event(),
        event("a caption, for models that write", "ftp.example/a", ""),
        event("https://x.invalid/a.mp4", type="parked"),
    ],
)
async def test_where_nothing_is_to_be_kept_it_is_done(made: Any, tmp_path: Path) -> None:
    """Other events, and outputs that are texts."""
    async with archive(tmp_path) as handler:
        assert await handler(made, context()) is None
    assert files(tmp_path) == {}


async def test_texts_beside_files_keep_their_places(tmp_path: Path) -> None:
    """The number in the name is that of the output."""
    async with giving(answering("503 X"), File(PNG)) as server, archive(tmp_path) as handler:
        made = event("a caption", output(server))
        with pytest.raises(Retry, match=r"^output 2 of 2: "):
            await handler(made, context())
        await handler(made, context())
    assert set(files(tmp_path)) == {PICTURE, MANIFEST}


async def test_the_same_event_again_asks_nobody(tmp_path: Path) -> None:
    """F25: killed between the manifest and the settling, there is nothing left to do."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        first = await handler(event(output(server)), context())
        written = (tmp_path / MANIFEST).stat().st_mtime_ns
        assert await handler(event(output(server)), context()) == first
        assert len(server.received) == 1
    assert (tmp_path / MANIFEST).stat().st_mtime_ns == written


async def test_a_file_that_was_removed_is_fetched_again(tmp_path: Path) -> None:
    """A person who asks for the event again gets what is missing, and no more."""
    async with giving(File()) as one, giving(File(PNG)) as two, archive(tmp_path) as handler:
        made = event(output(one), output(two))
        first = await handler(made, context())
        (tmp_path / PICTURE).unlink()
        assert await handler(made, context()) == first
        assert (len(one.received), len(two.received)) == (1, 2)
    assert set(files(tmp_path)) == {VIDEO, PICTURE, MANIFEST}


async def test_a_manifest_that_is_damaged_is_written_anew(tmp_path: Path) -> None:
    """The files are compared, not doubled."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        first = await handler(event(output(server)), context())
        (tmp_path / MANIFEST).write_bytes(b'{"files": [')
        assert await handler(event(output(server)), context()) == first
    assert set(files(tmp_path)) == {VIDEO, MANIFEST}
    assert json.loads((tmp_path / MANIFEST).read_text())["files"][0]["name"] == VIDEO


@pytest.mark.parametrize(
    "entry",
    [3, {}, {"index": 0, "source": "s", "name": VIDEO, "size": "3", "sha256": "", "type": ""}],
)
async def test_what_a_manifest_has_besides_is_not_believed(entry: JSON, tmp_path: Path) -> None:
    """Somebody's own entries are no files of ours."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        (tmp_path / MANIFEST).parent.mkdir(parents=True)
        (tmp_path / MANIFEST).write_text(json.dumps({"data": {"id": ID}, "files": [entry]}))
        await handler(event(output(server)), context())
        assert len(server.received) == 1
    assert json.loads((tmp_path / MANIFEST).read_text())["files"][0]["size"] == len(MP4)


async def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    """What is kept stays kept, and the next run asks only for what is missing."""
    async with (
        giving(File()) as one,
        giving(answering("503 X"), File(PNG)) as two,
        archive(tmp_path) as handler,
    ):
        made = event(output(one), output(two))
        with pytest.raises(Retry, match=r"^output 2 of 2: 127\.0\.0\.1: HTTP 503$"):
            await handler(made, context())
        assert kept(tmp_path) == {VIDEO: MP4}
        result = await handler(made, context())
        assert (len(one.received), len(two.received)) == (1, 2)
    assert result is not None
    assert set(files(tmp_path)) == {VIDEO, PICTURE, MANIFEST}


async def test_many_outputs_are_fetched_a_few_at_a_time(tmp_path: Path) -> None:
    """As many connections as there are outputs would be too many."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        result = await handler(event(*(output(server) for _ in range(9))), context())
        assert 1 <= len(server.tasks) <= 4
    assert json.dumps(result).count('"name"') == 9


CONFUSED: dict[str, tuple[File | Misbehaviour, str]] = {
    "empty": (answering(body=b""), "the file is empty"),
    "HTML": (answering(body=b"<!DOCTYPE html><html>sorry"), "the file is text/html by its content"),
    "XML": (answering(body=b"<?xml version='1.0'?><Error/>"), "text/html by its content"),
    "JSON": (answering(body=b'{"error": "sorry"}'), "application/octet-stream by its content"),
    "gone": (answering("404 Not Found"), "HTTP 404"),
    "gone for good": (answering("410 Gone"), "HTTP 410"),
    "cut before it was served": (File(MP4[:-100]), "the file ends before its end"),
    "compressed": (answering(headers="content-encoding: gzip\r\n"), "DecodingError"),
    "a circle": (answering("302 X", headers="location: /made\r\n"), "TooManyRedirects"),
}
"""What may be so for good."""


@pytest.mark.parametrize("way", CONFUSED)
async def test_what_is_no_output_is_refused(way: str, tmp_path: Path) -> None:
    """F35: tried again for a quarter of an hour, then never; nothing is kept of it."""
    behaviour, reason = CONFUSED[way]
    async with giving(behaviour) as server:
        async with archive(tmp_path, now=NOW + 890) as handler:
            with pytest.raises(Retry, match=reason) as early:
                await handler(event(output(server)), context(now=NOW + 890))
        async with archive(tmp_path, now=NOW + 910) as handler:
            with pytest.raises(GiveUp, match=reason):
                await handler(event(output(server)), context(now=NOW + 910))
    assert early.value.after is None
    assert files(tmp_path) == {}


@pytest.mark.parametrize("word", ["identity", "aws-chunked", ""])
async def test_a_word_about_the_way_it_came_harms_nobody(word: str, tmp_path: Path) -> None:
    """Stores keep it from the upload; the bytes are those of the file."""
    way = answering(body=MP4, headers=f"content-encoding: {word}\r\n")
    async with giving(way) as server, archive(tmp_path) as handler:
        await handler(event(output(server)), context())
    assert (tmp_path / VIDEO).read_bytes() == MP4


async def test_a_small_compressed_file_is_not_unpacked(tmp_path: Path) -> None:
    """F35: a gzip bomb is refused by its header."""
    bomb = answering(body=b"\x1f\x8b" + bytes(1000), headers="content-encoding: gzip\r\n")
    async with giving(bomb) as server, archive(tmp_path) as handler:
        with pytest.raises(Retry, match="DecodingError"):
            await handler(event(output(server)), context())
        assert ("accept-encoding", "identity") in server.received[0].headers


PASSING: dict[str, Misbehaviour] = {
    "overloaded": answering("503 X"),
    "broken": answering("500 X"),
    "forbidden": answering("403 X"),
    "no content": answering("204 X"),
    "a part, unasked": answering("206 X", headers="content-range: bytes 5-9/10\r\n"),
}


@pytest.mark.parametrize("way", PASSING)
async def test_a_passing_trouble_is_tried_until_the_output_expires(
    way: str, tmp_path: Path
) -> None:
    """F23: an outage of days does not lose a paid video; after a week it says that it is over."""
    async with giving(PASSING[way]) as server:
        made, errors = event(output(server)), []
        for age in (0.0, 6.99 * 86400, 7.01 * 86400):
            async with archive(tmp_path, now=NOW + age) as handler:
                with pytest.raises((Retry, GiveUp)) as raised:
                    await handler(made, context(now=NOW + age))
                errors.append(raised.value)
    assert [type(error) for error in errors] == [Retry, Retry, GiveUp]
    assert str(errors[2]).endswith("; the outputs have expired")
    assert files(tmp_path) == {}


async def test_how_long_outputs_are_there_is_a_setting(tmp_path: Path) -> None:
    """Another vendor keeps them for an hour; then the age of the event counts, not of the task."""
    made = event("http://127.0.0.1:1/made.mp4", occurred_at=NOW + 100)
    for age, error in ((3699.0, Retry), (3701.0, GiveUp)):
        async with archive(tmp_path, now=NOW + age, expires="1h") as handler:
            with pytest.raises(error, match="ConnectError"):
                await handler(made, context(now=NOW + age))


async def test_what_passes_goes_before_what_does_not(tmp_path: Path) -> None:
    """As long as one output can still be had, the event is not given up."""
    now = NOW + 3600
    async with (
        giving(answering("404 X")) as one,
        giving(answering("503 X"), File()) as two,
        archive(tmp_path, now=now) as handler,
    ):
        made = event(output(one), output(two))
        with pytest.raises(Retry, match=r"^output 1 of 2: .* HTTP 404; output 2 of 2: .* 503$"):
            await handler(made, context(now=now))
        with pytest.raises(GiveUp, match=r"^output 1 of 2: 127\.0\.0\.1: HTTP 404$"):
            await handler(made, context(now=now))
    assert kept(tmp_path) == {"2027-01-15/task-1/1.mp4": MP4}


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("value", "after"), [("120", 120.0), ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0)]
)
async def test_retry_after_pauses_the_handler(
    code: int, value: str, after: float, tmp_path: Path
) -> None:
    """F27: seconds or a date; what was asked for holds for every event."""
    refusal = answering(f"{code} X", headers=f"retry-after: {value}\r\n")
    async with giving(refusal) as server, archive(tmp_path) as handler:
        with pytest.raises(Retry) as retry:
            await handler(event(output(server), output(server)), context())
    assert (retry.value.after, retry.value.pause) == (after, True)


INSIDE = [
    "http://127.0.0.1:{port}/x",
    "http://[::ffff:127.0.0.1]:{port}/x",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/x",
    "http://[fe80::1]/x",
    "http://localhost:{port}/x",
]


@pytest.mark.parametrize("url", INSIDE)
async def test_an_output_inside_is_refused_for_good(url: str, tmp_path: Path) -> None:
    """F34: no connection is made, and nothing of the URL but its host is told."""
    async with giving(File()) as server, archive(tmp_path, allow=[]) as handler:
        target = url.format(port=server.url.rpartition(":")[2])
        with pytest.raises(GiveUp, match=r" is an? .* address; to permit it") as refused:
            await handler(event(f"{target}?signature=s3cret"), context())
        assert server.received == []
    assert "s3cret" not in str(refused.value)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/x", "ftp://127.0.0.1/x", "http://u:s3cret@127.0.0.1/"]
)
async def test_a_redirect_leads_no_further_than_a_url(url: str, tmp_path: Path) -> None:
    """F34: each hop is checked like the first."""
    way = answering("302 X", headers=f"location: {url}\r\n")
    async with giving(way) as server, archive(tmp_path) as handler:
        with pytest.raises(GiveUp) as refused:
            await handler(event(output(server)), context())
    assert "s3cret" not in str(refused.value)


async def test_a_redirect_to_another_place_is_followed(tmp_path: Path) -> None:
    """Storage services do so; a range is asked for where the file is."""
    async with giving(File(LARGE, [2_000_000])) as target:
        way = answering("302 X", headers=f"location: {output(target)}\r\n")
        async with giving(way) as server, archive(tmp_path) as handler:
            await handler(event(output(server)), context())
        assert len(target.received[1].header("range")) == 1
    assert kept(tmp_path).keys() == {VIDEO, MANIFEST}


@pytest.mark.parametrize("url", ["http://x:port/", "https://", "http://u:s3cret@127.0.0.1/x"])
async def test_what_is_no_url_is_given_up(url: str, tmp_path: Path) -> None:
    """F34: nor what has a password in it."""
    async with archive(tmp_path) as handler:
        with pytest.raises(GiveUp) as refused:
            await handler(event(url), context())
    assert "s3cret" not in str(refused.value)


async def test_a_name_that_another_file_has(tmp_path: Path) -> None:
    """F36: two events of one name: the second is not kept in the place of the first."""
    async with (
        giving(File(), File(LARGE)) as server,
        archive(tmp_path, name="{context.job}{index}{ext}") as handler,
    ):
        await handler(event(output(server), context={"job": "a"}), context())
        other = "wavespeed:task-2:completed"
        made = event(output(server), id=other, task="task-2", context={"job": "a"})
        with pytest.raises(GiveUp, match=r"another file has its name; expected a `name` that"):
            await handler(made, context(event_id=other))
    assert kept(tmp_path).keys() == {"a0.mp4", MANIFEST}
    assert (tmp_path / "a0.mp4").read_bytes() == MP4


async def test_a_manifest_of_another_event(tmp_path: Path) -> None:
    """F36: it stays as it is."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        await handler(event(output(server)), context())
        before = (tmp_path / MANIFEST).read_bytes()
        with pytest.raises(GiveUp, match="another event's manifest has its name"):
            await handler(event(output(server), id="other:task-1:completed"), context())
    assert (tmp_path / MANIFEST).read_bytes() == before


async def test_a_root_that_is_full_or_closed_is_tried_again(tmp_path: Path) -> None:
    """F20, F16: it may be freed, and the error does not tell names, which may be private."""
    async with giving(File()) as server, archive(tmp_path / "root") as handler:
        (tmp_path / "root" / "2027-01-15").write_bytes(b"")
        made = event(output(server), task="private")
        with pytest.raises(Retry, match=r"^NotADirectoryError: is not a folder; symb"):
            await handler(made, context())
        (tmp_path / "root").rename(tmp_path / "elsewhere")
        with pytest.raises(Retry, match=r"^output 1 of 1: FileNotFoundError: No such file"):
            await handler(made, context())
    async with archive(tmp_path / "root", now=NOW + 8 * 86400) as handler:
        (tmp_path / "root" / "2027-01-15").write_bytes(b"")
        with pytest.raises(GiveUp, match=r"have expired$"):
            await handler(made, context(now=NOW + 8 * 86400))


async def test_two_processes_may_be_at_it(tmp_path: Path) -> None:
    """F24: whoever comes second waits, and then finds it done."""
    async with (
        giving(File(LARGE)) as server,
        archive(tmp_path) as one,
        archive(tmp_path) as two,
    ):
        made = event(output(server))
        ended = await asyncio.gather(
            one(made, context()), two(made, context()), return_exceptions=True
        )
        assert sum(isinstance(each, dict) for each in ended) >= 1
        assert await one(made, context()) == await two(made, context())
    assert kept(tmp_path).keys() == {VIDEO, MANIFEST}


async def test_nothing_private_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F16: no URL's query, no prompt, no context."""
    caplog.set_level("DEBUG")
    async with giving(answering("503 X"), File()) as server, archive(tmp_path) as handler:
        made = event(output(server), context={"user": "private"})
        with pytest.raises(Retry) as retry:
            await handler(made, context())
        await handler(made, context())
    for text in (caplog.text, str(retry.value), repr(handler), repr(made)):
        assert "s3cret" not in text
        assert "private" not in text


async def test_a_closed_handler_opens_again(tmp_path: Path) -> None:
    """F41: where the app stops and starts around every request, each event is kept."""
    async with giving(File()) as server, archive(tmp_path) as handler:
        for task in ("a", "b"):
            id = f"wavespeed:{task}:completed"
            await handler(event(output(server), id=id, task=task), context(event_id=id))
            await handler.close()
    assert len(kept(tmp_path)) == 4


async def test_check_tries_the_root(tmp_path: Path) -> None:
    """What `wavehook check` calls."""
    async with archive(tmp_path) as handler:
        assert "files can be written, read and removed" in await handler.check()
