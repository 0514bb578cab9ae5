"""The units: what systemd's own tools say of them, and what they name."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from receiver.config import Settings
from submitter.units import seconds
from tests.deploy.targets import BIN, DEPLOY, block
from tests.docs.program import check
from tests.support import needed

FOLDER = DEPLOY / "systemd" / "system"
UNITS = sorted(path.name for path in FOLDER.glob("*.*") if path.is_file())
SERVICES = [name for name in UNITS if name.endswith(".service")]
INSTALLED = "/opt/wavehook/bin/wavehook"
EXPOSURE = 1.5
"""Of 10, which is no protection at all."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the program where it is here."""
    needed.programs("systemd-analyze")
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.service"):
        path.write_text(path.read_text().replace(INSTALLED, str(BIN / "wavehook")))
    return tmp_path


def analyze(units: Path, *words: str) -> str:
    """What systemd-analyze says, where it finds nothing wrong."""
    result = subprocess.run(
        ["systemd-analyze", *words],
        cwd=units,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_systemd_understands_the_units(units: Path) -> None:
    """No unknown key, no value that is none, no program that is not there."""
    assert str(units) not in analyze(units, "verify", *[f"./{name}" for name in UNITS])


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened(units: Path, name: str) -> None:
    """The hardening reaches every service by its name, and leaves little open."""
    words = ("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}")
    told = analyze(units, *words, f"./{name}")
    found = re.search(r"exposure level for \S+: ([\d.]+)", told)
    assert found is not None
    page = (DEPLOY / "systemd" / "README.md").read_text()
    assert f"whose exposure is {found[1]} of 10 and must stay below {EXPOSURE}" in page


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # keys keep their case
    parser.read(FOLDER / name)
    return parser


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_our_command(name: str) -> None:
    """The command exists; what lasts has time to stop, and ends for good only by its settings."""
    service = unit(name)["Service"]
    path, *words = service["ExecStart"].split()
    assert path == INSTALLED
    check(words)
    if service["Type"] == "oneshot":
        assert name.replace(".service", ".timer") in UNITS
        return
    # F40: requests have the grace time, and then handlers have it.
    assert seconds(service["TimeoutStopSec"]) > 2 * Settings().grace
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", "2")


def test_timers_have_a_service_each() -> None:
    """A timer starts the service of its name, also after a time that the machine slept through."""
    timers = [name for name in UNITS if name.endswith(".timer")]
    assert timers
    for name in timers:
        assert name.replace(".timer", ".service") in SERVICES
        assert unit(name)["Timer"]["Persistent"] == "true"
        assert unit(name)["Install"]["WantedBy"] == "timers.target"


def test_readme_installs_what_the_units_name() -> None:
    """Paths and user are the same in both, and each unit that is enabled exists."""
    install = block("systemd", "bash", "python3 -m venv")
    hardening = unit("wavehook-.service.d/hardening.conf")["Service"]
    assert f"python3 -m venv {INSTALLED.removesuffix('/bin/wavehook')}\n" in install
    assert f"/dev/null {hardening['EnvironmentFile']}\n" in install
    assert f" {hardening['Environment'].removeprefix('WAVEHOOK_CONFIG=')}\n" in install
    assert f"--home-dir {hardening['WorkingDirectory']} " in install
    assert install.count(f" {hardening['User']}\n") == 1
    enabled = re.findall(
        r"wavehook-[\w@.-]+\.(?:service|timer)", block("systemd", "bash", "daemon-reload")
    )
    assert len(enabled) > 3
    assert {re.sub(r"@\d+", "@", name) for name in enabled} <= {*UNITS}
