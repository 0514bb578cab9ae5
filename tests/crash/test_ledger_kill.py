"""SIGKILL around a submission's record: what was confirmed is there, what was not is whole or not.

The submission itself is killed elsewhere; here dies whoever writes the ledger.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from submitter.ledger.base import State
from submitter.ledger.sqlite import SQLiteLedger
from tests.support.opening import opened
from tests.support.paths import ROOT
from tests.support.submissions import intent

STEPS = {"intended": State.INTENDED, "accepted": State.ACCEPTED, "finished": State.FINISHED}


@pytest.mark.parametrize("step", STEPS)
async def test_what_was_confirmed_survives(tmp_path: Path, step: str) -> None:
    """F32: killed right after a step; the next process finds the submission as it was left."""
    await killed(tmp_path, step, lines=1)

    async with opened(SQLiteLedger(tmp_path / "ledger.db")) as ledger:
        found = (await ledger.find(["k0"]))["k0"]
    assert found.state is STEPS[step]
    assert (found.input, found.context) == (intent("k0").input, intent("k0").context)


async def test_killed_at_any_time(tmp_path: Path) -> None:
    """Promise 2: after each of some kills all that was confirmed is there, and places are whole."""
    confirmed: list[str] = []
    for n in range(5):
        lines = random.Random(n).randint(1, 40)
        confirmed += await killed(tmp_path, "all", lines=lines, first=1000 * n)
        async with opened(SQLiteLedger(tmp_path / "ledger.db")) as ledger:
            entries = await ledger.find(confirmed)
            finished = await ledger.finished(0, limit=100_000)
            assert sorted(entries) == sorted(confirmed)
            assert all(entry.state is State.FINISHED for entry in entries.values())
            places = [entry.place for entry in finished]
            assert places == list(range(1, len(places) + 1))
            assert await ledger.last_place() == len(places)


async def killed(folder: Path, step: str, *, lines: int, first: int = 0) -> list[str]:
    """Run a submitter until it has printed so many lines, kill it; all the keys it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.recording",
        str(folder / "ledger.db"),
        step,
        str(first),
        cwd=ROOT,
        stdout=PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        confirmed = [await process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        confirmed += (await process.stdout.read()).splitlines(keepends=True)
        assert await process.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in confirmed if line.endswith(b"\n")]
