"""What the suites of batches share: batches in this process, and as real commands."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitter.batch.batch import Batch
from submitter.batch.plan import BatchRequest, plan
from submitter.batch.results import write_results
from submitter.client import WaveSpeed
from submitter.errors import SubmitterError
from submitter.prediction import JSON, Prediction
from submitter.settings import SubmitSettings
from submitter.simulator import Simulator
from tests.support.fork_server import FORK_SERVER, Process
from tests.support.paths import ROOT

KLING = "kwaivgi/kling-v2.1-i2v-standard"
PATIENCE = 60.0
"""Seconds; only a test that fails waits as long."""

# Who runs the tests in the background may have them ignore Ctrl-C, and all they start.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from receiver.cli import main
main()
"""


@dataclass
class Done:
    """What a batch came to."""

    batch: Batch
    results: list[dict[str, Any]]
    said: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> list[str]:
        return [row["status"] for row in self.results]


class Scripted(WaveSpeed):
    """A client whose first posts come to what a test says; then all is as always."""

    def __init__(self, given: SubmitSettings, *script: SubmitterError) -> None:
        super().__init__(settings=given)
        self.script = list(script)
        self.posts = 0

    async def post(
        self, model: str, input: Mapping[str, JSON], webhook: str | None, *, timeout: float
    ) -> Prediction:
        self.posts += 1
        if self.script:
            raise self.script.pop(0)
        return await super().post(model, input, webhook, timeout=timeout)


def settings(sim: Simulator, folder: Path, **more: Any) -> SubmitSettings:
    """Of a batch that keeps all it keeps in a folder."""
    given: dict[str, Any] = {
        "api_key": "k",
        "base_url": sim.url,
        "database": f"sqlite:///{folder / 'ledger.db'}",
        "overdue": 2.0,
        "submit_timeout": 20.0,
    }
    return SubmitSettings(**{**given, **more})


def write(folder: Path, rows: Sequence[Any], name: str = "inputs.jsonl") -> Path:
    """The inputs: objects, or texts as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def run(
    wave: WaveSpeed, given: SubmitSettings, inputs: Path, *, model: str = KLING, **more: Any
) -> Done:
    """A whole batch, beside its inputs."""
    more = {"out": inputs.with_name("results.jsonl"), **more}
    wanted, said = BatchRequest(inputs=inputs, model=model, **more), list[str]()
    async with asyncio.timeout(PATIENCE), wave:
        batch = await plan(wave, given, wanted, said.append)
        await batch.run()
        await write_results(wanted.out, batch.rows, wanted.model, wave.find)
    return Done(batch, read(wanted.out), said)


async def start(sim: Simulator, folder: Path, *words: str, **more: str) -> Process:
    """The command as a process of its own."""
    return await FORK_SERVER.start(
        *("-c", PROGRAM, "batch"),
        *("inputs.jsonl", "--model", KLING, "--out", "results.jsonl", *words),
        folder=folder,
        environ={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WAVESPEED_BASE_URL": sim.url,
            "WAVESPEED_API_KEY": "k",
            "WAVEHOOK_DATABASE": "sqlite:///ledger.db",
            "WAVEHOOK_OVERDUE": "2s",
            "WAVEHOOK_SUBMIT_TIMEOUT": "3s",
            **more,
        },
    )


async def ended(process: Process) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
