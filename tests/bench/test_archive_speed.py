"""The archive against curl: `pytest -m bench -s -n0 tests/bench/test_archive_speed.py`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from submitter.simulator.media import mp4
from tests.bench.servers import HERE, ROUNDS, Ratio, running
from tests.support import needed
from tests.support.paths import ROOT
from tests.support.servers import free_port

pytestmark = pytest.mark.bench

MB = 10**6
FLAT = 16 * 2**20
"""Bytes by which memory may grow from a file of 20 MB to one of 400."""


def video(path: Path, size: int) -> Path:
    """A video of this size, most of which players pass over; it does not compress."""
    data = mp4()
    free = size - len(data)
    with path.open("wb") as file:
        file.write(data[:32] + free.to_bytes(4, "big") + b"free")
        for left in range(free - 8, 0, -MB):
            file.write(os.urandom(min(left, MB)))
        file.write(data[32:])
    return path


@contextmanager
def given(path: Path) -> Iterator[str]:
    """A process that gives out a file; its URL."""
    port = free_port()
    command = [sys.executable, str(HERE / "file_server.py"), str(path), str(port)]
    with running(command, port, path.with_suffix(".log")):
        yield f"http://127.0.0.1:{port}/video.mp4"


class Keeper:
    """A process with an archive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "archive_baseline.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def keep(self, url: str) -> dict[str, Any]:
        """Seconds until the output of this URL was kept, and the process's memory."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{url}\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        for path in self._folder.glob("task-*"):
            path.unlink()
        return told

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@contextmanager
def keeping(folder: Path) -> Iterator[Keeper]:
    keeper = Keeper(folder)
    try:
        yield keeper
    finally:
        keeper.close()


def curl(url: str, path: Path, *, durable: bool) -> float:
    """Seconds that curl takes, and where it is asked for, `sync` after it."""
    started = time.perf_counter()
    subprocess.run(["curl", "-sSo", str(path), url], check=True)
    if durable:
        subprocess.run(["sync", str(path)], check=True)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def test_throughput(tmp_path: Path) -> None:
    """100 MB, hashed, looked at and durable: at least 0.8 of curl with `sync` after it."""
    needed.programs("curl", "sync")
    size = 100 * MB
    with given(video(tmp_path / "large.mp4", size)) as url, keeping(tmp_path / "kept") as keeper:
        keeper.keep(url)
        plain, durable, ours = [], [], []
        for _ in range(max(ROUNDS, 9)):
            plain.append(curl(url, tmp_path / "curled", durable=False))
            ours.append(float(keeper.keep(url)["seconds"]))
            durable.append(curl(url, tmp_path / "curled", durable=True))
    ratios = []
    for name, others in (("curl, then sync", durable), ("curl", plain)):
        pairs = zip(others, ours, strict=True)
        ratios.append(Ratio(f"archive against {name}", [base / mine for base, mine in pairs]))
        print(f"\n{ratios[-1]}: {size / statistics.median(others) / MB:,.0f} MB/s of {name}")
    print(f"archive: {size / statistics.median(ours) / MB:,.0f} MB/s")
    assert ratios[0].median >= 0.8


def test_memory(tmp_path: Path) -> None:
    """A file of 400 MB takes no more of it than one of 20."""
    needed.linux()
    peaks = []
    with keeping(tmp_path / "kept") as keeper:
        for size in (20 * MB, 400 * MB):
            path = video(tmp_path / f"{size}.mp4", size)
            with given(path) as url:
                peaks.append(int(keeper.keep(url)["peak"]))
            path.unlink()
    print(f"\npeak memory: {peaks[0] / 2**20:.0f} MiB at 20 MB, {peaks[1] / 2**20:.0f} at 400 MB")
    assert peaks[1] - peaks[0] < FLAT
