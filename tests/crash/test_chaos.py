"""Everything goes wrong at once: every fault of the sender, and both sides killed over and over.

CHAOS_TASKS is the number of tasks (100; CI takes 1,000); TEST_SEED repeats moments and faults.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random

from submitter.simulator import Faults, Simulator
from tests.crash.conftest import Start
from tests.crash.receiving import WAVEHOOK, all_handled, inbox, notes, process
from tests.support.servers import free_port

TASKS = int(os.environ.get("CHAOS_TASKS", "100"))
KILLS = 5
SPEED = 100.0
FAULTS = "all=0.1,rate-limit=0.01"
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
POLLING = 2.0
"""Seconds between two questions of who polls."""

HANDLERS = ("note", "tell")
PATIENCE = 150.0


class Batch:
    """The same command again and again, in one folder."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder = folder
        self._settings = settings

    async def run(self, seconds: float | None = None) -> int:
        """Run it to its end, or kill it after some seconds; its exit code."""
        words = ("batch", "inputs.jsonl", "--model", MODEL, "--out", "results.jsonl")
        running = await process(self._folder, (*WAVEHOOK, *words), **self._settings)
        try:
            return await asyncio.wait_for(running.wait(), seconds or PATIENCE)
        except TimeoutError:
            running.kill()
            return await running.wait()


async def test_chaos_bills_once_and_forgets_nothing(
    start: Start, tmp_path: Path, seed: int
) -> None:
    """F28 to F32: each task is billed once, handled at least once under one key, none forgotten."""
    random = Random(seed)
    async with Simulator(speed=SPEED, faults=Faults.parse(FAULTS, seed)) as sim:
        lines = [
            json.dumps({"prompt": f"lighthouse {number}", "image": sim.first_frame})
            for number in range(TASKS)
        ]
        (tmp_path / "inputs.jsonl").write_text("\n".join(lines))
        port = free_port()
        settings = {
            "WAVESPEED_BASE_URL": sim.url,
            "WAVESPEED_API_KEY": "any",
            "WAVEHOOK_WAVESPEED_SECRETS": sim.secret,
            "WAVEHOOK_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "WAVEHOOK_PORT": str(port),
            "WAVEHOOK_OVERDUE": "3s",
            "WAVEHOOK_SUBMIT_TIMEOUT": "5s",
        }
        batch = Batch(tmp_path, settings)

        async def restart_receivers() -> None:
            for _ in range(KILLS):
                receiver = await start(**settings)
                await asyncio.sleep(random.uniform(0.5, 2.0))
                assert await receiver.end(signal.SIGKILL) == -signal.SIGKILL
            await start(**settings)

        killing = asyncio.create_task(restart_receivers())
        for _ in range(KILLS):
            await batch.run(random.uniform(1.5, 4.0))
        code = await batch.run()
        await killing
        await all_handled(tmp_path)
        billed = [task.input["prompt"] for task in sim.tasks]
        ids = {task.id for task in sim.tasks}
        calls = dict(sim.calls)
        polls = sum(task.run_time / POLLING for task in sim.tasks)

    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    questions = calls["result"] + calls["history"]
    sys.stdout.write(
        f"{TASKS} tasks, {KILLS} + {KILLS} kills: {calls['submit']} submits received, "
        f"{len(billed)} billed, {calls['result']} GETs and {calls['history']} history pages; "
        f"polling every {POLLING:g} s would have been {polls:.0f} GETs\n"
    )
    assert code == 0
    assert Counter(billed) == dict.fromkeys((f"lighthouse {n}" for n in range(TASKS)), 1)
    assert Counter(row["status"] for row in rows) == {"completed": TASKS}
    assert {row["task_id"] for row in rows} == ids
    assert [row["input"]["prompt"] for row in rows] == [f"lighthouse {n}" for n in range(TASKS)]
    keys = {f"wavespeed:{id}:completed/{name}" for id in ids for name in HANDLERS}
    assert {note["key"] for note in notes(tmp_path)} == keys
    async with inbox(tmp_path) as store:
        stored = await store.events(limit=2 * TASKS)
    assert len(stored) == TASKS
    assert questions < polls
