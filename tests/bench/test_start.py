"""What it costs to begin: `pytest -m bench -s -n0 tests/bench/test_start.py`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.load import SECRET
from tests.bench.servers import ROUNDS

pytestmark = pytest.mark.bench

FIVE = "import starlette.applications, uvicorn, httpx, cryptography.fernet, structlog"
OURS = "from receiver.web.asgi import app; from receiver import build; build.app()"


def seconds(code: str, folder: Path) -> float:
    environ = {**os.environ, "WAVEHOOK_WAVESPEED_SECRETS": SECRET}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, check=True)
    return time.perf_counter() - started


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
