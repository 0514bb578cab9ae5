"""`deploy/cloud-run`: the commands of its containers, with the variables of its files."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.deploy.functions import PATH, Target, bearer, body, headers
from tests.deploy.targets import DEPLOY, documents
from tests.support.paths import ROOT

FOLDER = DEPLOY / "cloud-run"
COMMAND = [sys.executable, "-c", "from receiver.cli import main; main()"]
PATIENCE = 60.0
"""Seconds; only a test that fails waits as long."""


def container(name: str) -> dict[str, Any]:
    """The only container of a file."""
    (found,) = documents(FOLDER / name)
    spec: Any = found["spec"]["template"]["spec"]
    (only,) = (spec if "containers" in spec else spec["template"]["spec"])["containers"]
    return dict(only)


def environ(target: Target, container: dict[str, Any], **platform: str) -> dict[str, str]:
    """The container's variables; secrets are the target's."""
    given = {each["name"]: each.get("value") for each in container["env"]}
    return {
        **{name: value or target.environ[name] for name, value in given.items()},
        "WAVEHOOK_DATABASE_SCHEMA": target.server.schema,
        "WAVEHOOK_HANDLERS": "my_handlers",
        "PYTHONPATH": f"{target.folder}:{ROOT}",
        "PATH": os.environ["PATH"],
        **platform,
    }


@contextmanager
def served(target: Target) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """The service's container, on a free port; no key of the API is at hand."""
    service = container("service.yaml")
    service["env"] = [each for each in service["env"] if each["name"] != "WAVESPEED_API_KEY"]
    found = environ(target, service, K_SERVICE="wavehook", WAVEHOOK_PORT="0")
    log = target.folder / "log"
    with log.open("wb") as stream:
        command = [*COMMAND, *service["args"]]
        process = subprocess.Popen(command, cwd=target.folder, env=found, stderr=stream)
    try:
        until = time.monotonic() + PATIENCE
        while (told := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        with httpx.Client(base_url=told[0], trust_env=False, timeout=PATIENCE) as client:
            yield client, process
    finally:
        process.kill()
        process.wait()


def test_the_service_and_the_job(target: Target) -> None:
    """F40, F41: webhooks, the drain by URL and by the job's command, and an orderly end."""
    sent, forged = body("task-1"), body("forged")
    with served(target) as (client, process):
        for probe in ("startupProbe", "livenessProbe"):
            path = container("service.yaml")[probe]["httpGet"]["path"]
            assert client.get(path).status_code == 200
        assert client.post(PATH, content=sent, headers=headers(sent)).status_code == 202
        assert client.post(PATH, content=sent, headers=headers(sent)).status_code == 200
        secret = headers(forged, secret="whsec_other")
        assert client.post(PATH, content=forged, headers=secret).status_code == 401
        assert target.handled == ["task-1"]
        assert client.post("/api/drain", headers=bearer()).json()["ran"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0

    async def again() -> None:
        async with target.store() as store:
            await store.redeliver("wavespeed:task-1:completed", {"note": ()}, 0.0)

    asyncio.run(again())
    job = container("job.yaml")
    done = subprocess.run(
        [*COMMAND, *job["args"], "--json"],
        cwd=target.folder,
        env=environ(target, job, CLOUD_RUN_JOB="wavehook-drain"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '{"ran": 1}\n'
    assert target.handled == ["task-1"] * 2


def test_limits_hold_together() -> None:
    """A container ends by itself before it is killed, and a run before its task is."""
    service, job = container("service.yaml"), container("job.yaml")
    given = {each["name"]: each.get("value") for each in (*service["env"], *job["env"])}

    # Twice the grace, for requests and for handlers, are less than Cloud Run's 10 s.
    assert float(given["WAVEHOOK_GRACE"].removesuffix("s")) * 2 < 10
    assert given["WAVEHOOK_DISPATCH"] == "inline"
    assert service["ports"] == [{"name": "http1", "containerPort": 8080}]
    (task,) = documents(FOLDER / "job.yaml")
    limit = task["spec"]["template"]["spec"]["template"]["spec"]["timeoutSeconds"]
    assert job["args"] == ["drain", "--deadline", "14m"]
    assert limit > 14 * 60
