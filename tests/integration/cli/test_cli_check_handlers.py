"""`wavehook check` and the handlers: would each of them work, and what is wrong where not."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from receiver.cli.application import application
from tests.support.command import run

ENVIRON = {"WAVEHOOK_WAVESPEED_SECRETS": "whsec_x", "TOKEN": "t0ken/s3cret"}

# The package has a function of the same name.
module = importlib.import_module("receiver.cli.check")

STRANGER = """
import asyncio
from pathlib import Path

class Stranger:
    def __init__(self, name, settings):
        self.name, self.settings = name, settings
        if "check" not in settings:
            self.check = None

    async def __call__(self, event, context): ...

    async def check(self):
        match self.settings["check"]:
            case "hang":
                await asyncio.sleep(3600)
            case "fail":
                raise ConnectionError(f"token {self.settings['token']} was refused")
            case "meet":
                return await meet()
        return f"found {self.settings['token']}\\n\\x1b[2J"

    async def close(self):
        Path(f"closed-{self.name}").touch()
        if self.settings.get("close") == "fail":
            raise OSError(f"{self.settings['token']}: it sticks")

waiting = []

async def meet():
    waiting.append(asyncio.Event())
    if len(waiting) == 2:
        for each in waiting:
            each.set()
    await waiting[-1].wait()
    return "met the other"

def create(name, settings):
    return Stranger(name, settings)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory in which a package offers the handler `stranger`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "a_stranger.py").write_text(STRANGER)
    info = tmp_path / "a_stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: a-stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wavehook.handlers]\nstranger = a_stranger:create\n")
    yield tmp_path
    sys.modules.pop("a_stranger", None)


def look(code: int, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The findings about handlers, by the handler's name."""
    text = "".join(
        f"[handlers.{name}]\n" + "".join(f"{key} = {json.dumps(v)}\n" for key, v in keys.items())
        for name, keys in sections.items()
    )
    Path("wavehook.toml").write_text(text)
    result = run("check", "--json", env=ENVIRON)
    assert result.exit_code == code, result.output
    assert "s3cret" not in result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(sorted(row) == ["check", "found", "ok", "todo"] for row in rows)
    about = [row for row in rows if row["check"] == "handler"]
    return {row["found"].partition(":")[0]: row for row in about}


def stranger(**settings: Any) -> dict[str, Any]:
    return {"use": "stranger", "token": "env:TOKEN", **settings}


def test_each_handler_has_a_line_of_its_own(folder: Path) -> None:
    """F16: what it found, or that there is nothing to try; each is closed, and shows no secret."""
    found = look(0, b=stranger(check="ok"), a=stranger(), log={"use": "log", "to": "events"})
    assert list(found) == ["a", "b", "log"]
    assert all(row["ok"] for row in found.values())
    assert found["a"]["found"] == "a: needs no service"
    assert found["b"]["found"].startswith("b: found …")
    assert found["log"]["found"] == "log: events can be written"
    assert sorted(path.name for path in folder.glob("closed-*")) == ["closed-a", "closed-b"]


def test_decorated_functions_have_nothing_to_try(folder: Path) -> None:
    """What a function stands on only it knows."""
    (folder / "decorated.py").write_text(
        "from receiver import on\n@on()\nasync def publish(event, context): ...\n"
    )
    command = ["check", "--handlers", "decorated"]
    result = CliRunner().invoke(application(), command, env=ENVIRON)
    assert "ok     handler     publish: needs no service\n" in result.stdout
    sys.modules.pop("decorated")


def test_a_handler_that_would_not_work(folder: Path) -> None:
    """F16: exit 1; what is wrong, without the secret, and what to do; others are tried too."""
    found = look(1, bad=stranger(check="fail"), good=stranger(check="ok"))
    assert found["bad"]["found"] == "bad: ConnectionError: token … was refused"
    assert found["bad"]["todo"] == "correct [handlers.bad], or repair the service that it uses"
    assert found["good"]["ok"]
    assert (folder / "closed-bad").exists()


def test_a_handler_that_does_not_close() -> None:
    """F16: it would hold up every shutdown."""
    found = look(1, x=stranger(check="ok", close="fail"))
    assert found["x"]["found"] == "x: it does not close (OSError: …: it sticks)"


def test_one_that_hangs_has_its_time_limit(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """F24: nobody waits for ever."""
    monkeypatch.setattr(module, "HANDLER_TIMEOUT_S", 0.05)
    found = look(1, x=stranger(check="hang"))
    assert found["x"]["found"] == "x: no answer within 0.05 s"
    assert (folder / "closed-x").exists()


def test_they_are_tried_at_the_same_time() -> None:
    """Many slow ones take as long as the slowest: here each waits for the other."""
    found = look(0, one=stranger(check="meet"), two=stranger(check="meet"))
    assert [row["found"] for row in found.values()] == ["one: met the other", "two: met the other"]


def test_no_handlers_are_no_fault() -> None:
    """Then one line says so."""
    result = run("check", env=ENVIRON)
    assert "ok     handlers    none: events are only stored\n" in result.stdout


async def test_http_connects_and_sends_nothing() -> None:
    """The target's answer to a connection is enough; a closed port and a loopback are told."""
    sent: list[bytes] = []
    seen = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.read())
        writer.close()
        seen.set()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    section = {
        "use": "http",
        "url": f"http://127.0.0.1:{port}/s3cret",
        "secret": "whsec_" + "A" * 43 + "=",
    }
    found = await asyncio.to_thread(look, 1, open=section | {"allow": "127.0.0.1"}, shut=section)
    async with asyncio.timeout(5):
        await seen.wait()
    server.close()
    assert found["open"]["found"] == f"open: 127.0.0.1: port {port} takes connections"
    assert "127.0.0.1 is a loopback address" in found["shut"]["found"]
    assert sent == [b""]
    found = await asyncio.to_thread(look, 1, gone=section | {"allow": "127.0.0.1"})
    assert f"no connection to port {port}" in found["gone"]["found"]
