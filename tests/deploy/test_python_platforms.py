"""`deploy/azure-functions` and `deploy/modal`, called as their platforms call them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.functions import PATH, Target, bearer, body, headers
from tests.support import needed
from tests.support.paths import ROOT

HERE = Path(__file__).parent
PLATFORMS = {
    "azure-functions": ("azure_host.py", "azure.functions", "FUNCTIONS_WORKER_RUNTIME"),
    "modal": ("modal_container.py", "modal", "MODAL_IS_REMOTE"),
}
WHEEL = "./wavehook-{version}-py3-none-any.whl[{extras}]"


class Host:
    """A platform's process.

    Args:
        process: reads calls, and prints answers.
        log: what it writes beside these.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def call(self, **call: object) -> Any:
        """What the function answers."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._log.read_text()
        return json.loads(answer)

    def send(
        self, path: str, headers: Mapping[str, str], body: bytes = b"", method: str = "POST"
    ) -> tuple[int, str]:
        """The status of a request, and its answer."""
        encoded = base64.b64encode(body).decode()
        found = self.call(method=method, path=path, headers=dict(headers), body=encoded)
        return found["status"], found["body"]


@contextmanager
def hosted(platform: str, target: Target) -> Iterator[Host]:
    """A platform's process in its folder, which ends when there is nothing more to call."""
    script, module, sign = PLATFORMS[platform]
    needed.module(module)
    log = target.folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, HERE / script],
            cwd=ROOT / "deploy" / platform,
            env={
                **target.environ,
                "PATH": os.environ["PATH"],
                "HOME": str(target.folder),
                "PYTHONPATH": f"{ROOT / 'deploy' / platform}:{target.folder}:{ROOT}",
                sign: "python",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
        with process:
            yield Host(process, log)
            assert process.stdin
            process.stdin.close()
            assert process.wait(60) == 0, log.read_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_webhooks_and_the_schedule(platform: str, target: Target) -> None:
    """F41: stored once, handled and told to the ledger before the reply; the timer does more."""
    asyncio.run(target.submitted("k1", "task-1"))
    sent, forged = body("task-1"), body("forged")
    with hosted(platform, target) as host:
        assert host.send(PATH, headers(sent), sent)[0] == 202
        assert host.send(PATH, headers(sent), sent)[0] == 200
        assert host.send(PATH, headers(forged, secret="whsec_other"), forged)[0] == 401
        assert target.handled == ["task-1"]
        assert asyncio.run(target.status("k1")) == "completed"

        token = f"{PATH}/{target.token({'user': 7})}"
        assert host.send(token, headers(body("two")), body("two"))[0] == 202
        status, answer = host.send("/api/predictions/two", bearer(), method="GET")
        assert (status, json.loads(answer)["context"]) == (200, {"user": 7})

        (target.folder / "handled").unlink()

        async def again() -> None:
            async with target.store() as store:
                await store.redeliver("wavespeed:two:completed", {"note": ()}, 0.0)

        asyncio.run(again())
        host.call(timer=True)
        assert target.handled == ["two"]


def test_the_host_of_azure_adds_nothing_to_a_path() -> None:
    """Webhooks come to `/webhooks/…`, and a run of the timer may take as long as it has."""
    host = json.loads((ROOT / "deploy" / "azure-functions" / "host.json").read_text())

    assert host["version"] == "2.0"
    assert host["extensions"]["http"]["routePrefix"] == ""
    assert host["functionTimeout"] == "00:05:00"


@pytest.mark.parametrize(
    ("target_name", "extras", "others"),
    [
        ("aws-lambda", "postgres,lambda", []),
        ("vercel", "postgres", []),
        ("azure-functions", "postgres", ["azure-functions"]),
    ],
)
def test_the_requirements(target_name: str, extras: str, others: list[str]) -> None:
    """They name the wheel that the command of the README makes."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    path = ROOT / "deploy" / target_name / "requirements.txt"

    assert path.read_text().splitlines() == [*others, WHEEL.format(version=version, extras=extras)]
