"""SIGKILL while an output is being kept: the next run ends it, and nothing is doubled."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from receiver.handlers.archive.disk import CHECKPOINT_BYTES, MAX_BUFFERED_BYTES
from tests.crash.conftest import Start
from tests.crash.receiving import WAVEHOOK, all_handled, attempts
from tests.support.misbehaving_server import Misbehaviour, Server
from tests.support.outputs import MP4, File, files, giving, output
from tests.support.waiting import until

LARGE = (
    MP4[:32]
    + (CHECKPOINT_BYTES + MAX_BUFFERED_BYTES + 4 * 2**20).to_bytes(4, "big")
    + b"free"
    + bytes(CHECKPOINT_BYTES + MAX_BUFFERED_BYTES + 4 * 2**20 - 8)
)
LARGE += MP4[32:]
"""A video of which more has come than is noted at once, when it is killed."""

SERVE = (*WAVEHOOK, "serve")


def configure(folder: Path) -> None:
    (folder / "wavehook.toml").write_text(
        '[handlers.keep]\nuse = "archive"\nto = "kept"\nname = "{task}/{index}{ext}"\n'
        'manifest = "{task}/manifest.json"\nallow = ["127.0.0.1"]\n'
        'retry = { base = "100ms" }\n'
    )


def stopping(server: Server, size: int) -> Misbehaviour:
    """The beginning of the file, and then nothing."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        head, body = File(LARGE).to(server.received[-1])
        writer.write(head.encode() + b"\r\n" + body[:size])
        await writer.drain()
        await asyncio.sleep(3600)

    return behave


def kept(folder: Path) -> dict[str, bytes]:
    return files(folder / "kept")


async def test_killed_in_the_middle_of_a_file(start: Start, tmp_path: Path) -> None:
    """F25: the next process asks for what was not noted to be there, and for no more."""
    configure(tmp_path)
    async with giving(File(LARGE)) as server:
        server.ways.insert(0, stopping(server, CHECKPOINT_BYTES + MAX_BUFFERED_BYTES + 2**20))
        receiver = await start(*SERVE)
        await receiver.send("task-1", outputs=[output(server)])
        await until(lambda: any(name.endswith(".json") for name in kept(tmp_path)))
        assert await receiver.end(signal.SIGKILL) == -signal.SIGKILL
        assert all(name.startswith(".wavehook/") for name in kept(tmp_path))

        await start(*SERVE)
        await all_handled(tmp_path)
        asked = [each.header("range") for each in server.received]
    assert asked[0] == []
    assert (
        CHECKPOINT_BYTES <= int(asked[1][0].removeprefix("bytes=").removesuffix("-")) < len(LARGE)
    )
    assert kept(tmp_path).keys() == {"task-1/0.mp4", "task-1/manifest.json"}
    assert kept(tmp_path)["task-1/0.mp4"] == LARGE


@pytest.mark.parametrize(("point", "requests"), [("linked", 2), ("kept", 2), ("described", 1)])
async def test_killed_when_a_file_was_there(
    start: Start, tmp_path: Path, point: str, requests: int
) -> None:
    """F25: before the part was removed, before the manifest, and before the settling."""
    configure(tmp_path)
    async with giving(File(MP4)) as server:
        receiver = await start("-m", "tests.crash.archiving", point, "serve")
        await receiver.send("task-1", outputs=[output(server)])
        assert await receiver.ended() == -signal.SIGKILL
        before = kept(tmp_path)
        assert before["task-1/0.mp4"] == MP4
        assert ("task-1/manifest.json" in before) == (point == "described")

        await start(*SERVE)
        await all_handled(tmp_path)
        assert len(server.received) == requests
    found = kept(tmp_path)
    assert found.keys() == {"task-1/0.mp4", "task-1/manifest.json"}
    assert found["task-1/0.mp4"] == MP4
    assert json.loads(found["task-1/manifest.json"])["files"][0]["size"] == len(MP4)
    tries = await attempts(tmp_path, "task-1", "keep")
    assert [each.outcome for each in tries] == ["lost", "done"]
