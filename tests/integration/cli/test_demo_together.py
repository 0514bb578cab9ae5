"""`wavehook demo --config` with an archive, a pipeline and a chat: what each left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from receiver.demo.story import DemoSummary, Scenario
from tests.support import needed
from tests.support.command import run

FAST = Scenario(speed=200.0)
PUBLIC = "https://cdn.example/made"
LOCAL = 'allow = ["127.0.0.1"]'

SETTINGS = """
[handlers.keep]
use = "archive"
to = "videos"
public_url = "https://cdn.example/made"
allow = ["127.0.0.1"]

[handlers.team]
use = "slack"
after = ["keep"]
url = "env:DEMO_SLACK"
allow = ["127.0.0.1"]
"""

PIPELINE = """
[handlers.events]
use = "nats"
url = "env:DEMO_NATS"
stream = "STREAM"
subject = "STREAM.{type}"
create_stream = true
"""


class Slack(BaseHTTPRequestHandler):
    """Stands in for an incoming webhook of Slack."""

    messages: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.messages.append(json.loads(body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the channel got from a demo that hurries, in a folder of its own."""
    told: list[dict[str, Any]] = []
    stand_in = type("Slack", (Slack,), {"messages": told})
    monkeypatch.chdir(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), stand_in) as server:
        monkeypatch.setenv("DEMO_SLACK", f"http://127.0.0.1:{server.server_port}/t0ken")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a stream that goes with the test."""
    monkeypatch.setenv("DEMO_NATS", needed.nats())
    name = f"demo_{secrets.token_hex(6)}"
    yield name
    asyncio.run(_remove(name))


async def _remove(stream: str) -> None:
    client = await _connected()
    try:
        await client.jetstream().delete_stream(stream)
    except NotFoundError:
        pass
    finally:
        await client.close()


async def _connected() -> Client:
    client = Client()
    await client.connect(needed.nats())
    return client


async def _published(stream: str) -> list[dict[str, Any]]:
    """What a plain client finds in a stream."""
    client = await _connected()
    try:
        context = client.jetstream()
        count = (await context.stream_info(stream)).state.messages
        found = [await context.get_msg(stream, seq) for seq in range(1, count + 1)]
    finally:
        await client.close()
    return [json.loads(each.data or b"") for each in found]


def play(code: int, settings: str) -> DemoSummary:
    Path("demo.toml").write_text(settings)
    result = run("demo", "--config", "demo.toml", "--json", obj=FAST)
    assert result.exit_code == code, result.output
    return DemoSummary(**json.loads(result.stdout))


def test_ten_videos_ten_events_ten_messages(
    messages: list[dict[str, Any]], stream: str, tmp_path: Path
) -> None:
    """F30: each once, whatever the demo makes go wrong, and each message with the lasting link."""
    summary = play(0, SETTINGS + PIPELINE.replace("STREAM", stream))
    assert summary.exactly_once
    assert summary.handlers == {name: {"done": 10} for name in ("keep", "team", "events")}

    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("videos/**/manifest.json")]
    files = [file for each in manifests for file in each["files"]]
    assert len(manifests) == len(files) == 10
    for file in files:
        video = (tmp_path / "videos" / file["name"]).read_bytes()
        assert (len(video), hashlib.sha256(video).hexdigest()) == (file["size"], file["sha256"])
        assert file["type"] == "video/mp4"
    assert len(list(tmp_path.glob("videos/**/*.mp4"))) == 10

    events = asyncio.run(_published(stream))
    ids = {each["data"]["id"] for each in manifests}
    assert {each["specversion"] for each in events} == {"1.0"}
    assert {each["type"] for each in events} == {"wavehook.prediction.completed"}
    assert len(events) == 10
    assert {each["id"] for each in events} == ids

    links = {f"{PUBLIC}/{file['name']}" for file in files}
    assert len(messages) == 10
    assert {link for link in links for text in map(json.dumps, messages) if link in text} == links
    assert not any("127.0.0.1" in json.dumps(each["blocks"]) for each in messages)


def test_an_archive_that_is_dead_keeps_no_message_back(messages: list[dict[str, Any]]) -> None:
    """F34: refused for good, because nothing allows it; the channel hears of it all the same."""
    summary = play(1, SETTINGS.replace(LOCAL, "", 1))
    assert not summary.exactly_once
    assert summary.handlers == {"keep": {"dead": 10}, "team": {"done": 10}}
    assert len(messages) == 10
    told = "keep failed: output 1 of 1: 127.0.0.1: 127.0.0.1 is a loopback address"
    assert all(told in json.dumps(each) and "/outputs/" in json.dumps(each) for each in messages)
