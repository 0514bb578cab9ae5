"""Dispatches a second against two job queues on the same PostgreSQL.

`pytest -m bench -s -n0 tests/bench/test_postgres_queues.py`; see `queues.py` for what each does.
All have 64 jobs at work at once, apart from the second pgqueuer, which has no cap on them, as is
its default. procrastinate takes one job at a time by design, so it is given fewer.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.bench.postgres import database
from tests.bench.servers import ROUNDS, Ratio
from tests.support.paths import ROOT

pytestmark = pytest.mark.bench

COUNTS = {"wavehook": 6000, "pgqueuer": 6000, "pgqueuer-uncapped": 6000, "procrastinate": 300}


def ran(queue: str) -> float:
    """Jobs a second of one run on a schema of its own."""
    with database() as found:
        done = subprocess.run(
            [
                sys.executable,
                *("-m", "tests.bench.queues", queue, f"--url={found.url}"),
                *(f"--schema={found.schema}", f"--count={COUNTS[queue]}"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    return float(json.loads(done.stdout)["ran"])


def test_no_operation_jobs() -> None:
    """At least as fast as the fastest of them, each round between two runs of all."""
    others = {name: [ran(name)] for name in COUNTS if name != "wavehook"}
    mine = []
    for _ in range(ROUNDS):
        mine.append(ran("wavehook"))
        for name, runs in others.items():
            runs.append(ran(name))
    print()
    ratios = []
    for name, runs in others.items():
        around = [statistics.mean(pair) for pair in pairwise(runs)]
        ratios.append(Ratio(f"against {name}", [a / b for a, b in zip(mine, around, strict=True)]))
        print(ratios[-1])
        print(Ratio(f"{name} against itself", [b / a for a, b in pairwise(runs)]))
    for name, runs in (("wavehook", mine), *others.items()):
        print(f"{name}: {statistics.median(runs):,.0f} a second")
    assert min(ratio.median for ratio in ratios) >= 1
