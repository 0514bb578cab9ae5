"""The image, as far as it goes without an engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.targets import BIN, DEPLOY, program
from tests.docs.program import check
from tests.support import needed
from tests.support.paths import ROOT

FILE = DEPLOY / "docker" / "Dockerfile"
PATIENCE = 20.0
"""Seconds; only a test that fails waits as long."""


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what stands after it, in order."""
    written = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [line.partition(" ")[::2] for line in written.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, rest in pairs]


def last(word: str) -> str:
    return [rest for each, rest in instructions() if each == word][-1]


def health() -> list[str]:
    words: list[str] = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    return words


def test_hadolint_finds_nothing() -> None:
    """The linter's own judgement, without exceptions."""
    hadolint = program("hadolint")
    if hadolint is None:
        needed.programs("hadolint")
    result = subprocess.run([str(hadolint), FILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in FILE.read_text()


def test_runs_our_command_as_a_user_without_rights() -> None:
    """Exec form, so that signals reach it; numbers, so that a cluster can tell it from root."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [entry] = json.loads(last("ENTRYPOINT"))
    assert entry in project["scripts"]
    check(json.loads(last("CMD")))
    assert last("STOPSIGNAL") == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert "WAVEHOOK_HOST=0.0.0.0" in last("ENV")


def test_takes_what_the_wheel_needs_and_nothing_else() -> None:
    """What is copied exists and passes .dockerignore, whose first word is to leave out all."""
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    assert copied == {*packages, *files, "pyproject.toml", "requirements.lock"}
    assert all((ROOT / name).exists() for name in copied)
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[str]:
    """The command on all addresses, as in the image."""
    needed.programs("bash")
    process = await asyncio.create_subprocess_exec(
        BIN / "wavehook",
        *("serve", "--port", "0"),
        cwd=tmp_path,
        env=os.environ
        | {"WAVEHOOK_HOST": "0.0.0.0", "WAVEHOOK_WAVESPEED_SECRETS": "whsec_local-test"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            lines = [json.loads(await process.stderr.readline())]
            while lines[-1]["event"] != "server.started":
                lines.append(json.loads(await process.stderr.readline()))
        yield lines[-1]["url"].rpartition(":")[2]
    finally:
        process.terminate()
        await process.communicate()


async def healthy(port: str) -> bool:
    """What an engine makes of the health check."""
    process = await asyncio.create_subprocess_exec(
        *health(),
        env={"PATH": os.environ["PATH"], "WAVEHOOK_PORT": port},
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE):
        return await process.wait() == 0


async def test_health_check_tells_well_from_gone(port: str) -> None:
    """Well where a receiver answers; not where nobody listens, or something else answers."""
    assert await healthy(port)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        other = str(server.sockets[0].getsockname()[1])
        assert not await healthy(other)
    assert not await healthy(other)
