"""The Compose file: against Compose's schema, itself, and the program."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from receiver.config import Settings, read
from submitter.simulator import Simulator
from submitter.units import seconds
from tests.deploy.targets import BIN, DEPLOY, block, documents, program
from tests.docs.program import check
from tests.support import needed

FOLDER = DEPLOY / "compose"
[COMPOSE] = documents(FOLDER / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == COMPOSE["name"]]
MOUNTED = "/run/secrets/"
API_KEY = "a-key"
PATIENCE = 20.0
"""Seconds; only a test that fails waits as long."""


def test_compose_takes_the_file() -> None:
    """The schema of the Compose specification, as check-jsonschema ships it."""
    command = [str(program("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run(
        [*command, FOLDER / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_one_receives_and_one_handles() -> None:
    """The commands exist, and the image is the one of `docker`, built from the top."""
    assert sorted(OURS) == ["receiver", "worker"]
    for name in OURS:
        check(SERVICES[name]["command"])
        build = SERVICES[name]["build"]
        context = (FOLDER / build["context"]).resolve()
        assert context / build["dockerfile"] == DEPLOY / "docker" / "Dockerfile"
    [port] = SERVICES["receiver"]["ports"]
    assert port == f"127.0.0.1:{Settings().port}:{Settings().port}"


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_no_rights(name: str) -> None:
    """A read-only root, no capabilities, no way to gain any, and a start after each end."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_there(name: str) -> None:
    """Secrets, files, volumes and services that it waits for; all secrets are files."""
    service = SERVICES[name]
    environment = service["environment"].values()
    mounted = {
        found[1] for value in environment if (found := re.search(MOUNTED + r"(\w+)$", str(value)))
    }
    assert set(service["secrets"]) == mounted
    assert mounted <= COMPOSE["secrets"].keys()
    assert {each["source"] for each in service.get("configs", ())} <= COMPOSE["configs"].keys()
    volumes = {each.partition(":")[0] for each in service.get("volumes", ())}
    assert volumes <= COMPOSE["volumes"].keys()
    for other, wanted in service.get("depends_on", {}).items():
        assert wanted == {"condition": "service_healthy"}
        assert "test" in SERVICES[other]["healthcheck"]


@pytest.mark.parametrize("name", OURS)
def test_time_to_stop_is_enough(name: str) -> None:
    """F40: requests have the grace time, and then handlers have it."""
    grace = seconds(SERVICES[name]["environment"]["WAVEHOOK_GRACE"])
    assert seconds(SERVICES[name]["stop_grace_period"]) > 2 * grace


async def test_secrets_of_the_readme_are_the_files_that_are_read(tmp_path: Path) -> None:
    """Its commands make each file, closed to others but not to the containers; settings take them.

    `wavehook secret` asks the simulator here.
    """
    needed.programs("bash", "openssl")
    (tmp_path / "wavehook.toml").write_text((FOLDER / "wavehook.toml").read_text())
    async with Simulator() as simulator:
        process = await asyncio.create_subprocess_exec(
            shutil.which("bash") or "bash",
            *("-euc", block("compose", "bash", "secrets/seal_keys")),
            cwd=tmp_path,
            env=os.environ
            | {
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "WAVESPEED_BASE_URL": simulator.url,
                "WAVESPEED_API_KEY": API_KEY,
            },
        )
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = {path.name: path for path in folder.iterdir()}
    assert {f"secrets/{name}" for name in made} == {
        each["file"] for each in COMPOSE["secrets"].values()
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.values()} == {0o444}
    password = made["database_password"].read_text()
    assert made["database_url"].read_text() == f"postgresql://wavehook:{password}@database/wavehook"
    receiver = settings("receiver", tmp_path)
    assert receiver.api_key is not None
    assert receiver.api_key.get_secret_value() == API_KEY
    assert (len(receiver.seal_keys), len(receiver.wavespeed_secrets)) == (1, 1)
    for each in (receiver, settings("worker", tmp_path)):
        assert each.database == made["database_url"].read_text()
        assert (each.dispatch, list(each.handlers)) == ("external", ["keep"])
        assert each.seal_keys == receiver.seal_keys


def settings(name: str, folder: Path) -> Settings:
    """What a service reads, with what is mounted taken from a folder."""
    places = {MOUNTED: f"{folder}/secrets/", "/etc/wavehook/": f"{folder}/"}
    environ = {}
    for variable, value in SERVICES[name]["environment"].items():
        text = re.sub(r"\$\{\w+:\?[^}]*\}", "https://hooks.example.com", value)
        for mounted, place in places.items():
            text = text.replace(mounted, place)
        environ[variable] = text
    reading = read(environ, cwd=folder)
    assert reading.faults == ()
    return reading.settings
