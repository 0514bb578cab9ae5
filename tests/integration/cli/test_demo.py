"""`wavehook demo`: the whole loop, as a person and as a script see it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from receiver.cli.application import CommandGroup
from receiver.cli.application import application as cli
from receiver.database import inbox_exists, open_store
from receiver.demo.command import _view, demo, demo_inbox
from receiver.demo.story import DemoLog, DemoSummary, Scenario, file_inbox, run
from receiver.demo.view import Lines, LiveTable, Statuses, View, summary_text
from receiver.errors import SettingsError
from receiver.stores.postgres import remove_schema
from receiver.stores.sqlite import SQLiteStore
from submitter.storage.postgres_pool import server_address
from tests.support import needed

FAST = Scenario(speed=200.0)


def application() -> typer.Typer:
    app = typer.Typer(cls=CommandGroup)
    app.callback()(lambda: None)
    app.command()(demo)
    return app


def invoke(*arguments: str, scenario: Scenario | None = None) -> Result:
    return CliRunner().invoke(application(), ["demo", *arguments], obj=scenario)


def test_ten_tasks_are_handled_exactly_once_whatever_goes_wrong(tmp_path: Path) -> None:
    """F3, F23, F24, F30: duplicates, a killed worker, a failing handler, a forgery; one JSON."""
    kept = tmp_path / "kept.db"
    result = invoke("--json", str(kept))
    assert result.exit_code == 0, result.output
    summary = DemoSummary(**json.loads(result.stdout))
    assert summary.exactly_once
    assert (summary.submitted, summary.handled, summary.forgeries_refused) == (10, 10, 1)
    assert summary.duplicates_dropped == 3
    assert summary.verified == 13
    assert summary.retried >= 2
    assert summary.seconds < 30
    assert summary.database == str(kept)
    with sqlite3.connect(kept) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    asyncio.run(_look_into(kept))


async def _look_into(kept: Path) -> None:
    """What is kept says the same: ten events, each with its context, done once."""
    store = SQLiteStore(kept)
    await store.open()
    try:
        listed = await store.events()
        contexts = [each.event.context for each in listed]
        outcomes = Counter[str | None]()
        for each in listed:
            [dispatch] = await store.dispatches(each.event.id)
            assert isinstance(dispatch.result, dict)
            assert isinstance(dispatch.result["bytes"], int)
            assert dispatch.result["bytes"] > 30_000
            outcomes.update(a.outcome for a in await store.attempts(each.event.id))
    finally:
        await store.close()
    tasks = [context["task"] for context in contexts if isinstance(context, dict)]
    assert sorted(str(task) for task in tasks) == sorted(str(n) for n in range(1, 11))
    assert outcomes["done"] == 10
    assert outcomes["lost"] == 1
    assert outcomes["retry"] == 1


def test_where_nobody_watches_it_tells_the_story_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines, the summary, and the way into the inbox that was kept."""
    monkeypatch.chdir(tmp_path)
    result = invoke("--keep", scenario=FAST)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "simulated API on http://127.0.0.1:" in lines[0]
    assert sum("  submitted" in line for line in lines) == 10
    assert sum("its worker was killed" in line for line in lines) == 1
    assert "forged webhook refused: invalid signature, HTTP status 401" in lines
    assert any(line.startswith(" 10 tasks handled (each exactly once,") for line in lines)
    kept = tmp_path / "wavehook-demo.db"
    assert f"  wavehook events --database sqlite:///{kept}" in lines
    assert kept.exists()


async def test_on_a_terminal_it_draws_a_table(tmp_path: Path) -> None:
    """The last picture has every task handled, and full progress."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    before = asyncio.all_tasks()
    with LiveTable(console) as view:
        summary = await run(view, file_inbox(tmp_path / "demo.db"), scenario=FAST)
    assert summary.exactly_once
    assert summary.database is None
    assert "10/10 handled" in screen.getvalue()
    assert "completed" in screen.getvalue()
    assert asyncio.all_tasks() == before


def test_what_is_not_handled_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit 1, and the summary says so; nothing is left in the temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = invoke(scenario=Scenario(speed=200.0, faults="drop", timeout_s=0.5))
    assert result.exit_code == 1
    assert "NOT each exactly once" in result.stdout
    assert "stopped after 0.5 s" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_beside_the_stores_word_is_no_success(tmp_path: Path) -> None:
    """F30: exactly once is counted in the handlers too, not only in the store."""

    class ExtraRun(View):
        def show(self, log: DemoLog, statuses: Statuses) -> None:
            log.runs["another task", "another key"] = 1

    summary = asyncio.run(run(ExtraRun(), file_inbox(tmp_path / "demo.db"), scenario=FAST))
    assert summary.handled == 10
    assert not summary.exactly_once


@pytest.mark.parametrize("place", ["there.db", "no/folder/demo.db"])
def test_a_place_that_cannot_be_used_is_a_usage_error(tmp_path: Path, place: str) -> None:
    """Neither an inbox that is there already nor a missing folder is touched."""
    (tmp_path / "there.db").write_text("mine")
    result = invoke(str(tmp_path / place))
    assert result.exit_code == 2
    assert (tmp_path / "there.db").read_text() == "mine"


@pytest.mark.parametrize(("watched", "view"), [(True, LiveTable), (False, Lines)])
def test_the_view_fits_who_is_watching(
    monkeypatch: pytest.MonkeyPatch, watched: bool, view: type[object]
) -> None:
    """A table on a terminal, lines elsewhere, nothing for a script."""

    class Output(io.StringIO):
        def isatty(self) -> bool:
            return watched

    monkeypatch.setattr("sys.stdout", Output())
    assert isinstance(_view(as_json=False), view)
    assert type(_view(as_json=True)) is View


START = """
import typer
from receiver.demo.command import demo
from receiver.cli.application import CommandGroup
app = typer.Typer(cls=CommandGroup)
app.callback()(lambda: None)
app.command()(demo)
app()
"""


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle: no file, no traceback, no zero."""
    command = [sys.executable, "-c", START, "demo"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        late = threading.Timer(30, process.kill)
        late.start()
        assert process.stdout is not None
        for line in process.stdout:
            if "killed" in line:
                assert list(tmp_path.iterdir())
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate()
        late.cancel()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_on_the_postgres_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """F3, F23, F24, F30: the same loop in a schema of its own, which is kept where it is wanted."""
    url = needed.postgres()
    monkeypatch.setenv("WAVEHOOK_DATABASE", url)
    monkeypatch.chdir(tmp_path)
    result = invoke("--json", "--keep", scenario=FAST)
    summary = DemoSummary(**json.loads(result.stdout))
    schema = summary.schema
    assert schema is not None
    try:
        assert (result.exit_code, summary.exactly_once, summary.handled) == (0, True, 10)
        assert summary.database == f"{server_address(url)}, schema {schema}"
        assert f"wavehook events --database-schema {schema}" in summary_text(summary)
        looked = CliRunner().invoke(cli(), ["events", "--json", "--database-schema", schema])
        assert [json.loads(line)["dispatches"] for line in looked.stdout.splitlines()] == [
            {"demo": "done"}
        ] * 10
    finally:
        asyncio.run(remove_schema(url, schema, pooler=False))
    assert list(tmp_path.iterdir()) == []


async def test_the_schema_of_a_demo_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the demo fails; nothing else on the server is touched."""
    url = needed.postgres()
    monkeypatch.setenv("WAVEHOOK_DATABASE", url)
    context = demo_inbox(None, keep=False)
    at = await context.__aenter__()
    store = open_store(at.settings)
    await store.open()
    await store.close()
    assert await inbox_exists(at.settings)
    failure = ZeroDivisionError()
    assert not await context.__aexit__(ZeroDivisionError, failure, None)
    assert not await inbox_exists(at.settings)
    assert not at.kept


async def test_a_path_is_a_file_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who names a file gets it, and other settings of the environment change nothing."""
    monkeypatch.setenv("WAVEHOOK_DATABASE", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("WAVEHOOK_PORT", "no number")
    async with demo_inbox(str(tmp_path / "kept.db"), keep=False) as at:
        assert (at.settings.database_path, at.kept) == (tmp_path / "kept.db", True)
    monkeypatch.setenv("WAVEHOOK_DATABASE", "postgresql://me:hush@127.0.0.1:port/x")
    with pytest.raises(SettingsError) as raised:
        await demo_inbox(None, keep=False).__aenter__()
    assert "hush" not in str(raised.value)
