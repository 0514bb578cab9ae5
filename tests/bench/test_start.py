"""What it costs to begin: `pytest -m bench -s -n0 tests/bench/test_start.py`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bench.load import SECRET
from tests.bench.postgres import database
from tests.bench.servers import ROUNDS, Ratio
from tests.support.paths import ROOT

pytestmark = pytest.mark.bench

FIVE = "import starlette.applications, uvicorn, httpx, cryptography.fernet, structlog"
OURS = "from receiver.web.asgi import app; from receiver import build; build.app()"


def seconds(code: str, folder: Path) -> float:
    environ = {**os.environ, "WAVEHOOK_WAVESPEED_SECRETS": SECRET}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, check=True)
    return time.perf_counter() - started


def cold(what: str, folder: Path, environ: Mapping[str, str]) -> float:
    """What a process of `first.py` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.first", what],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def against_the_five(folder: Path, environ: Mapping[str, str]) -> float:
    """Import, build and first answer over the import of the five packages; prints both."""
    cold("five", folder, environ), cold("ours", folder, environ)
    ratios, mine = [], []
    for _ in range(ROUNDS):
        before, ours, after = (cold(what, folder, environ) for what in ("five", "ours", "five"))
        ratios.append(ours / ((before + after) / 2))
        mine.append(ours)
    print(f"\n{Ratio('cold start to the first answer against the import of five', ratios)}")
    print(f"cold start to the first answer: {statistics.median(mine) * 1000:.0f} ms")
    return statistics.median(ratios)


def test_first_answer_on_sqlite(tmp_path: Path) -> None:
    """A process that answers its first webhook from a file that is there."""
    assert against_the_five(tmp_path, {"WAVEHOOK_WAVESPEED_SECRETS": SECRET}) <= 2


def test_first_answer_on_postgres(tmp_path: Path) -> None:
    """The same on PostgreSQL: with its driver, its connections, and a look at its version."""
    with database() as found:
        environ = {**found.environ, "WAVEHOOK_WAVESPEED_SECRETS": SECRET}
        assert against_the_five(tmp_path, environ) <= 2


def test_import(tmp_path: Path) -> None:
    """Importing and building the app against importing the five fixed packages: at most 1.3."""
    seconds(FIVE, tmp_path), seconds(OURS, tmp_path)
    empty = min(seconds("", tmp_path) for _ in range(5))
    ratios, mine = [], []
    for _ in range(max(ROUNDS, 7) * 2):
        before, ours, after = (seconds(code, tmp_path) - empty for code in (FIVE, OURS, FIVE))
        ratios.append(ours / ((before + after) / 2))
        mine.append(ours)
    middle = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"\nimport and build: {middle:.2f} times the five packages ({spread})")
    print(f"import and build: {statistics.median(mine) * 1000:.0f} ms beyond a bare interpreter")
    assert middle <= 1.3
