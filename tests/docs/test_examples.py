"""What the pages show is run as it stands there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from receiver.cli.application import application
from receiver.config import read
from receiver.event import DispatchState, Event
from receiver.handlers.loading import install
from receiver.source_keys import load_sources
from receiver.stores.sqlite import SQLiteStore
from submitter.simulator import Simulator
from tests.docs import pages
from tests.support.pictures import png

TASK = "wavespeed:task-1:completed"
PATIENCE = 20.0
"""Seconds; only a test that fails waits as long."""

BASH = shutil.which("bash") or "bash"
BIN = Path(sys.executable).parent
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"""One that every kind of source and handler takes."""

SHAPED = {
    "SLACK_TOKEN": "xoxb-1234-abcdefgh",
    "DISCORD_URL": "https://discord.com/api/webhooks/1/abc",
    "TEAMS_URL": "https://teams.example/workflows/1",
    "TELEGRAM_TOKEN": "1234:abcdefghijkl",
    "APPRISE_URL": "mailtos://user:password@example.com",
    "RABBITMQ_URL": "amqp://user:password@rabbit.example:5672/",
}
"""Of those that are secrets of another shape."""

OTHERS = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("WAVEHOOK_", "WAVESPEED_"))
}


def need(*programs: str) -> None:
    """Skip where a program is not here; on CI it has to be."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {', '.join(missing)}")
    if missing:
        pytest.skip(f"{', '.join(missing)} is not on this machine")


def exports(containing: str, heading: str) -> dict[str, str]:
    """The variables that a block below a heading exports."""
    [text] = [block.text for block in pages.blocks("bash", heading) if containing in block.text]
    return dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))


class Server:
    """`wavehook serve`, with its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, object]] = []

    async def line(self, event: str) -> dict[str, object]:
        """The first line of this event, waited for."""
        assert self.process.stderr is not None
        for found in self.lines:
            if found["event"] == event:
                return found
        async with asyncio.timeout(PATIENCE):
            async for raw in self.process.stderr:
                self.lines.append(json.loads(raw))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"no {event} in {self.lines}")


@contextlib.asynccontextmanager
async def serving(folder: Path, *words: str, **settings: str) -> AsyncIterator[Server]:
    """The real command in a folder, on a free port."""
    process = await asyncio.create_subprocess_exec(
        BIN / "wavehook",
        *("serve", "--port", "0", *words),
        cwd=folder,
        env=OTHERS | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Server(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def run(folder: Path, *words: str | Path, **settings: str) -> str:
    """A program's output, where it ends with 0."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env=OTHERS | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_signed_by_openssl_and_sent_by_curl(tmp_path: Path) -> None:
    """The example of the chapter "Receive": 202, then 200; the log's lines look as shown."""
    need("bash", "openssl", "curl", "sed", "date")
    (tmp_path / "wavehook.toml").write_text('[handlers.keep]\nuse = "log"\nto = "events.jsonl"\n')
    settings = exports("whsec_local-test", "Receive")
    assert pages.the_block("bash", "whsec_local-test").endswith("\nwavehook serve\n")
    async with serving(tmp_path, **settings) as server:
        url = str((await server.line("server.started"))["url"])
        port = url.rpartition(":")[2]
        script = pages.the_block("bash", "openssl dgst")
        output = await run(tmp_path, BASH, "-euc", script, WAVEHOOK_PORT=port, **settings)
        lines = [await server.line("request.served"), await server.line("dispatch.settled")]
    assert output == pages.the_block("text", '"duplicate": true')
    shown = [json.loads(line) for line in pages.the_block("json", "request.served").splitlines()]
    assert [sorted(line) for line in lines] == [sorted(line) for line in shown]
    assert (lines[0]["event_id"], lines[0]["status"]) == (TASK, 202)


async def test_submitted_received_and_handled(tmp_path: Path) -> None:
    """The examples of "Submit" and "Handle", together: two submits become two videos."""
    submit, typed, handlers = (
        pages.the_block("python", f"# {name}.py") for name in ("make_video", "typed", "my_handlers")
    )
    (tmp_path / "make_video.py").write_text(submit)
    (tmp_path / "typed.py").write_text(typed)
    (tmp_path / "my_handlers.py").write_text(handlers)
    (tmp_path / "first.png").write_bytes(png())
    command = pages.the_block("bash", "-i duration=5")
    settings = exports("WAVESPEED_BASE_URL", "Set up") | {
        "WAVEHOOK_ADMIN_TOKEN": "a long random text"
    }
    assert "`wavehook serve --handlers my_handlers`" in pages.TEXT
    async with Simulator(speed=600.0) as simulator:
        settings["WAVESPEED_BASE_URL"] = simulator.url
        async with serving(tmp_path, "--handlers", "my_handlers", **settings) as server:
            settings["WAVEHOOK_PUBLIC_URL"] = str((await server.line("server.started"))["url"])
            # One after the other: two that begin at one moment may both upload the file.
            printed = [
                await run(tmp_path, sys.executable, "make_video.py", **settings),
                await run(tmp_path, BASH, "-euc", command, **settings),
                await run(tmp_path, sys.executable, "typed.py", **settings),
            ]
            assert server.process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                told = [await server.process.stdout.readline() for _ in simulator.tasks]
            script = pages.the_block("bash", "/api/predictions/")
            results = [
                json.loads(await run(tmp_path, BASH, "-euc", script, TASK_ID=task.id, **settings))
                for task in simulator.tasks
            ]
        tasks = {task.id: task for task in simulator.tasks}
        uploads, questions = simulator.calls["put"], simulator.calls["result"]
    assert {text.split()[0] for text in printed if text} == tasks.keys()
    assert all(text.count("http://127.0.0.1:") == 1 for text in printed if text)
    assert (uploads, questions) == (1, 0)
    assert {task.input["prompt"] for task in tasks.values()} == {"A lighthouse at dusk"}
    assert [line.decode().rpartition(" for ")[2].strip() for line in told] == ["{'user': 7}"] * 2
    answers = pages.the_line("The response is 200 with")
    fields = re.findall(r"`(\w+)`", answers.partition(" as soon as ")[0])
    assert [sorted(result) for result in results] == [sorted(fields)] * 2
    videos = list((tmp_path / "videos").iterdir())
    assert len(videos) == 2
    assert all(video.suffix == ".mp4" and video.stat().st_size > 0 for video in videos)


async def test_batch_of_the_chapter_submit(tmp_path: Path) -> None:
    """The command as it stands there, on CSV: each row is paid for once, also the second time."""
    command = pages.the_block("bash", "wavehook batch shots.csv")
    settings = exports("WAVESPEED_BASE_URL", "Set up")
    async with Simulator(speed=600.0) as simulator:
        rows = [f"take {number},{simulator.first_frame},5" for number in range(3)]
        (tmp_path / "shots.csv").write_text("\n".join(["prompt,image,duration", *rows]))
        settings["WAVESPEED_BASE_URL"] = simulator.url
        async with serving(tmp_path, **settings) as server:
            settings["WAVEHOOK_PUBLIC_URL"] = str((await server.line("server.started"))["url"])
            for _ in range(2):
                await run(tmp_path, BASH, "-euc", command, **settings)
        assert len(simulator.tasks) == 3
        assert simulator.calls["result"] == 0
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["input"]["prompt"] for row in results] == ["take 0", "take 1", "take 2"]
    assert {row["status"] for row in results} == {"completed"}


async def test_first_handler_of_the_readme(tmp_path: Path) -> None:
    """The five minutes of the README: its handler prints the video of its submit."""
    (tmp_path / "hello.py").write_text(pages.the_block("python", "# hello.py"))
    need("bash", "curl")
    settings = exports("wavehook serve --handlers hello", "Your first handler")
    script = pages.the_block("bash", "curl -so first.png http")
    async with Simulator(speed=600.0) as simulator:
        assert script.count(settings["WAVESPEED_BASE_URL"]) == 1
        script = script.replace(settings["WAVESPEED_BASE_URL"], simulator.url)
        settings["WAVESPEED_BASE_URL"] = simulator.url
        async with serving(tmp_path, "--handlers", "hello", **settings) as server:
            settings["WAVEHOOK_PUBLIC_URL"] = str((await server.line("server.started"))["url"])
            printed = await run(tmp_path, BASH, "-euc", script, **settings)
            assert server.process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                line = (await server.process.stdout.readline()).decode()
        [task] = simulator.tasks
    assert task.id in printed
    assert re.fullmatch(r"finished: http://127\.0\.0\.1:\S+ for \{'user': 7\}\n", line)


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an inbox that holds one handled event, and afterwards the log as it was."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(OTHERS):
        monkeypatch.delenv(name)
    (tmp_path / "wavehook.toml").write_text('[handlers.keep]\nuse = "log"\nto = "events.jsonl"\n')
    asyncio.run(_fill(tmp_path / "wavehook.db"))
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore")
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    yield tmp_path
    for each, handlers, level, propagate in before:
        each.handlers[:] = handlers
        each.setLevel(level)
        each.propagate = propagate
    structlog.reset_defaults()


async def _fill(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    try:
        await store.add(
            Event(TASK, "wavespeed", "prediction.failed", body=b"{}", received_at=1.0), {"keep": ()}
        )
    finally:
        await store.close()


@pytest.mark.usefixtures("inbox")
def test_commands_of_the_chapter_operate() -> None:
    """Each line of "Look and repair" ends with 0."""
    lines = pages.the_block("bash", "wavehook dead list").splitlines()
    outputs = {}
    for line in lines:
        result = CliRunner().invoke(application(), line.split()[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
        outputs[line] = result.output
    assert TASK in outputs["wavehook events --type prediction.failed --limit 20"]
    assert outputs[f"wavehook redeliver {TASK} --handler keep"] == "Due again for keep.\n"


def test_backup_of_an_inbox_in_use(inbox: Path) -> None:
    """The statement of the chapter "Operate" copies what a process has open, whole."""
    found = re.search(r'^sqlite3 (\S+) "([^"]+)"$', pages.the_block("bash", "VACUUM"), re.MULTILINE)
    assert found is not None

    async def back_up() -> DispatchState:
        store, copy = SQLiteStore(inbox / "wavehook.db"), SQLiteStore(inbox / "backup.db")
        await store.open()
        try:
            with contextlib.closing(sqlite3.connect(inbox / found[1])) as other:
                other.execute(found[2])
        finally:
            await store.close()
        await copy.open()
        try:
            [dispatch] = await copy.dispatches(TASK)
        finally:
            await copy.close()
        return dispatch.state

    assert asyncio.run(back_up()) is DispatchState.PENDING


def toml_blocks() -> list[str]:
    every = pages.blocks("toml")
    # A package's, which test_readme_package installs.
    return [block.text for block in every if block.heading != "Your own handler"]


@pytest.mark.parametrize("text", toml_blocks(), ids=lambda text: text.partition("\n")[0])
def test_toml_is_a_file_that_serve_takes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every TOML block is read, its sources get their keys, and its handlers are made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wavehook.toml").write_text(text)
    environ = {name: SHAPED.get(name, SECRET) for name in re.findall(r'"env:(\w+)"', text)}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    reading = read({**environ, "WAVEHOOK_WAVESPEED_SECRETS": SECRET}, cwd=tmp_path)
    faults = list(reading.faults)
    sources = load_sources(reading.settings, faults)
    installed = install(reading.settings.handlers)
    try:
        assert faults == []
        document = tomllib.loads(text)
        assert sources.keys() == {"wavespeed", *document.get("sources", {})}
        assert [each.name for each in installed] == list(document.get("handlers", {}))
        assert len(sources) + len(installed) > 2
    finally:
        for each in installed:
            if each.close is not None:
                asyncio.run(each.close())  # type: ignore[arg-type]
