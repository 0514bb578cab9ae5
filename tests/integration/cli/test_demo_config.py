"""`wavehook demo --config`: the user's handlers beside the demo's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import Result

from receiver.demo.story import DemoSummary, Scenario
from tests.support.command import run

FAST = Scenario(speed=200.0)

SETTINGS = """
[wavehook]
handlers = "demo_guest"
public_url = "https://hooks.example.com"

[handlers.keep]
use = "log"
to = "events.jsonl"

[handlers.sorry]
use = "log"
on = "prediction.failed"
"""

GUEST = """
from pathlib import Path
from receiver import GiveUp, Retry, on

@on("prediction.completed", after="keep", retry={"base": 0})
async def tell(event, context):
    number = event.context["task"]
    if number == 3 and context.attempt == 1:
        raise Retry("a moment")
    if number == 5 and fails:
        raise GiveUp("the channel is gone")
    with Path("told.txt").open("a") as file:
        file.write(f"{number} {context.earlier['keep'].state}\\n")

fails = False
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file of settings and a module, and a demo that hurries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "mine.toml").write_text(SETTINGS)
    (tmp_path / "demo_guest.py").write_text(GUEST)
    return tmp_path


def invoke(*words: str) -> Result:
    try:
        return run("demo", "--config", "mine.toml", *words, obj=FAST)
    finally:
        sys.modules.pop("demo_guest", None)


def test_each_gets_each_event_once(folder: Path) -> None:
    """F30: the demo's duplicates, forgery and killed worker multiply nothing of the user's."""
    result = invoke("--json")
    assert result.exit_code == 0, result.output
    summary = DemoSummary(**json.loads(result.stdout))
    assert summary.exactly_once
    assert summary.handlers == {"keep": {"done": 10}, "sorry": {}, "tell": {"done": 10}}
    assert summary.retried >= 3
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 10
    assert {line["attempt"] for line in lines} == {1}
    told = (folder / "told.txt").read_text().splitlines()
    assert sorted(told) == sorted(f"{number} done" for number in range(1, 11))


def test_one_that_gives_up_is_told(folder: Path) -> None:
    """F23: the user's own failure is an exit code, a line of the story, and a figure."""
    (folder / "demo_guest.py").write_text(GUEST.replace("fails = False", "fails = True"))
    result = invoke()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert sum("tell: dead, attempt 1 (the channel is gone)" in line for line in lines) == 1
    assert (
        lines[-3:]
        == [
            "    keep: 10 done",
            "    sorry: none yet",
            "    tell: 9 done, 1 dead",
        ]
        or lines[-3:][2] == "    tell: 1 dead, 9 done"
    )
    assert "NOT each exactly once" in result.stdout


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[handlers.x]\nuse = "nothing"\n', "handlers.x.use: 'nothing', expected one of"),
        ('[handlers.demo]\nuse = "log"\n', "handlers.demo: two handlers of this name"),
        ("[handler.x]\n", "handler: there is no such section; did you mean handlers?"),
        (None, "--config = 'mine.toml': expected a TOML file that can be read"),
    ],
)
def test_a_file_that_cannot_work_is_told_first(folder: Path, text: str | None, fault: str) -> None:
    """Nothing is submitted then."""
    (folder / "mine.toml").unlink()
    if text is not None:
        (folder / "mine.toml").write_text(text)
    result = invoke()
    assert result.exit_code == 2
    assert fault in result.stderr
    assert result.stdout == ""


def test_a_file_here_is_not_read_unless_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo without --config is the same everywhere."""
    (folder / "mine.toml").rename(folder / "wavehook.toml")
    monkeypatch.setenv("WAVEHOOK_HANDLERS", "demo_guest")
    result = run("demo", "--json", obj=FAST)
    assert json.loads(result.stdout)["handlers"] == {}
    assert not (folder / "events.jsonl").exists()
