"""`wavehook simulate` as a person starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
import typer
from typer.testing import CliRunner

from submitter.simulator import FaultKind, Faults
from submitter.simulator.cli import _listed, simulate
from submitter.simulator.faults import GROUPS

app = typer.Typer(rich_markup_mode=None)
app.command()(simulate)

START = "import typer; from submitter.simulator.cli import simulate; typer.run(simulate)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_to_export_and_stops_at_a_signal(number: signal.Signals) -> None:
    """The exports work as printed; Ctrl-C ends it with 0 and the bill."""
    command = [sys.executable, "-c", START, "--port", "0", "--faults", "all=0.2"]
    env = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        intro = ""
        while "Ctrl-C" not in intro:
            line = process.stdout.readline()
            assert line, intro
            intro += line
        found = dict(re.findall(r"export (\w+)=(\S+)", intro))
        url = found["WAVESPEED_BASE_URL"]
        key = {"Authorization": f"Bearer {found['WAVESPEED_API_KEY']}"}
        # From here on nothing goes wrong, whatever the seed.
        quiet = re.search(r"curl -s (\S+/simulator/faults) ", intro)
        assert quiet
        assert httpx.post(quiet[1], json={"faults": ""}).json()["faults"] == {}
        secret = httpx.get(f"{url}/api/v3/webhook/secret", headers=key).json()["data"]["secret"]
        assert secret == found["WAVEHOOK_WAVESPEED_SECRETS"]
        example = re.search(r'curl -s "(\S+)" .*?-d \'(.*?)\'', intro, re.DOTALL)
        assert example
        answer = httpx.post(example[1], headers=key, content=example[2], timeout=30)
        assert answer.json()["data"]["status"] == "created"
        assert all(f" {fault}=0.2" in intro for fault in FaultKind)
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "1 submits" in rest
    assert "0.25 USD" in rest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "dupe"], "Use all, or some of"),
        (["--faults", "drop=2"], "from 0 to 1"),
        (["--speed", "0"], "above 0"),
        (["--speed", "inf"], "above 0"),
        (["--speed", "nan"], "above 0"),
        (["--expire", "0"], "above 0"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], words: str) -> None:
    """Exit 2, with what was expected."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert words in result.output


def test_a_port_that_is_taken_is_said_with_the_way_out() -> None:
    """Exit 1, and `--port 0` is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(app, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "--port 0" in result.output


def test_without_faults_the_intro_says_where_they_stand() -> None:
    """Nobody has to guess that there are any."""
    assert "none; see wavehook simulate --help" in _listed(Faults.parse("drop=0"))
    assert _listed(Faults.parse("reset", 7)) == "seed 7\n    of each submit: reset=1"


def test_the_help_names_every_fault_in_its_group() -> None:
    """What can be asked for stands in the help, in the order of the groups."""
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    listed = result.output.partition("Faults of")[2].partition("While")[0]
    wanted = [fault for members in GROUPS.values() for fault in members]
    assert sorted(wanted) == sorted(FaultKind)
    lines = [line.strip() for line in listed.splitlines() if ":" not in line]
    assert " ".join(lines).replace(",", "").split() == wanted
    assert all(f"Faults {group}:" in result.output for group in GROUPS)
    assert "--seed" in result.output
