"""`deploy/vercel`, served as Vercel's Python runtime serves it: by uvicorn, with lifespan.

The runtime itself serves it where it can be had: it needs Python 3.12.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.deploy.functions import PATH, Target, bearer, body, headers
from tests.support import needed
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "vercel"
PATIENCE = 60.0
"""Seconds; only a test that fails waits as long."""

UVICORN = """
import socket, sys, uvicorn
from index import app
config = uvicorn.Config(app, lifespan="auto", access_log=False, log_level="warning")
uvicorn.Server(config).run([socket.socket(fileno=int(sys.argv[1]))])
"""

Serve = Callable[[Target], AbstractContextManager[str]]


@contextmanager
def running(
    target: Target, command: Sequence[str], fds: Sequence[int] = (), **environ: str
) -> Iterator[None]:
    """A process in the folder, until the end of the block."""
    with (target.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            env={
                **target.environ,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{target.folder}:{FOLDER / 'api'}:{ROOT}",
                "VERCEL": "1",
                **environ,
            },
            stdout=log,
            stderr=log,
            pass_fds=fds,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def by_uvicorn(target: Target) -> Iterator[str]:
    """On a socket that is there before the app."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["-c", UVICORN, str(listener.fileno())]
        with running(target, command, [listener.fileno()]):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def by_the_runtime(target: Target) -> Iterator[str]:
    """The runtime tells over a socket where it listens, and then all that is logged."""
    if sys.version_info < (3, 12):
        pytest.skip("Vercel's runtime needs Python 3.12")
    needed.module("vercel_runtime")
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/ipc")
        listener.listen()
        listener.settimeout(PATIENCE)
        told = {
            "VERCEL_IPC_PATH": f"{folder}/ipc",
            "__VC_HANDLER_ENTRYPOINT": "api/index.py",
            "__VC_HANDLER_ENTRYPOINT_ABS": str(FOLDER / "api" / "index.py"),
            "__VC_HANDLER_MODULE_NAME": "index",
            "__VC_HANDLER_VARIABLE_NAME": "app",
        }
        with running(target, ["-c", "import vercel_runtime.vc_init"], **told):
            teller, _ = listener.accept()
            message = b""
            while not message.endswith(b"\0"):
                message += teller.recv(1)
            started = json.loads(message[:-1])
            assert started["type"] == "server-started", started
            reading = threading.Thread(target=_read, args=(teller,))
            reading.start()
            yield f"http://127.0.0.1:{started['payload']['httpPort']}"
        reading.join()


def _read(teller: socket.socket) -> None:
    with teller:
        while teller.recv(4096):
            pass


@pytest.mark.parametrize("serve", [by_uvicorn, by_the_runtime])
def test_webhooks_and_the_cron_job(serve: Serve, target: Target) -> None:
    """F41: handled and told to the ledger before the reply; what is left is done by the GET."""
    asyncio.run(target.submitted("k1", "task-1"))
    with (
        serve(target) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client,
    ):
        answers = [
            client.post(PATH, content=body("task-1"), headers=headers(body("task-1"))),
            client.post(PATH, content=body("task-1"), headers=headers(body("task-1"))),
            client.post(PATH, content=body("x"), headers=headers(body("x"), secret="whsec_x")),
        ]
        assert [answer.status_code for answer in answers] == [202, 200, 401]
        assert target.handled == ["task-1"]
        assert asyncio.run(target.status("k1")) == "completed"
        (cron,) = json.loads((FOLDER / "vercel.json").read_text())["crons"]
        asked = client.get(cron["path"], headers=bearer())
        assert asked.json() == {"ran": 0, "reconciled": 0, "more": False}
        assert client.get(cron["path"]).status_code == 401


def test_every_path_leads_to_the_entry() -> None:
    """The file that is named is there, and has more time than a reply may take."""
    config = json.loads((FOLDER / "vercel.json").read_text())

    ((entry, function),) = config["functions"].items()
    assert (FOLDER / entry).exists()
    assert function["maxDuration"] > 20
    ((source, destination),) = (each.values() for each in config["rewrites"])
    assert (source, f"{destination}.py") == ("/(.*)", f"/{entry}")
