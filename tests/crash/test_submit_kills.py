"""SIGKILL at each point of a submission: nothing is sent twice, nothing is forgotten."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from submitter.ledger.base import State
from submitter.ledger.sqlite import SQLiteLedger
from submitter.simulator import Faults, Simulator
from tests.crash.receiving import process

KEY = "the only one"
PROGRAM = "tests.crash.submitting"


async def submit(sim: Simulator, folder: Path, point: str = "never") -> tuple[int, bytes]:
    """Run the submitter; exit code and what it printed."""
    running = await process(
        folder,
        ("-m", PROGRAM, point, KEY),
        WAVESPEED_BASE_URL=sim.url,
        WAVESPEED_API_KEY="any",
        WAVEHOOK_DATABASE="sqlite:///ledger.db",
        WAVEHOOK_OVERDUE="2s",
        WAVEHOOK_SUBMIT_TIMEOUT="1s",
    )
    output, told = await asyncio.wait_for(running.communicate(), 60)
    sys.stderr.write(told.decode())
    assert running.returncode is not None
    return running.returncode, output


@pytest.mark.parametrize(
    ("point", "billed"), [("before-post", 0), ("before-answer", 1), ("before-record", 1)]
)
async def test_a_killed_submitter_pays_once(point: str, billed: int, tmp_path: Path) -> None:
    """F32: the same command again finds the task that was paid for, or pays for the first time."""
    faults = Faults.parse("slow-answer" if point == "before-answer" else "")
    async with Simulator(speed=40, faults=faults) as sim:
        code, _ = await submit(sim, tmp_path, point)
        assert code == -signal.SIGKILL
        assert len(sim.tasks) == billed
        ledger = SQLiteLedger(tmp_path / "ledger.db")
        await ledger.open()
        entry = (await ledger.find([KEY]))[KEY]
        await ledger.close()
        assert entry.state is State.INTENDED

        code, output = await submit(sim, tmp_path)
        assert code == 0
        assert len(sim.tasks) == 1
        assert json.loads(output) == {"id": sim.tasks[0].id, "status": "completed"}
