"""The two servers of the benches, and rounds of load against them.

BENCH_ROUNDS and BENCH_SEED change the number of rounds (7) and the seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from tests.bench.load import SECRET
from tests.support.paths import ROOT
from tests.support.servers import free_port

HERE = Path(__file__).parent
SEED = int(os.environ.get("BENCH_SEED", "20261122"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load."""

    port: int
    pid: int

    def load(self, seed: int, **options: int) -> dict[str, Any]:
        """One run of `load.py` against it; what it measured."""
        return _load([self], seed, options)

    def peak(self) -> int:
        """Its peak resident memory so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers that share the load."""

    each: tuple[Server, ...]

    def load(self, seed: int, **options: int) -> dict[str, Any]:
        """One run of `load.py` against all of them."""
        return _load(self.each, seed, options)


def _load(servers: Iterable[Server], seed: int, options: Mapping[str, int]) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), "--path=/webhooks/wavespeed"]
    words = [f"--{name}={value}" for name, value in (("seed", seed), *options.items())]
    ports = [f"--port={server.port}" for server in servers]
    done = subprocess.run([*command, *ports, *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, **environ: str) -> Iterator[Server]:
    """A server process, from the moment that it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environ}
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/livez", timeout=1)
                break
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def bare(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """The bare route."""
    port = free_port()
    command = [sys.executable, str(HERE / "bare.py"), f"--port={port}"]
    return running(command, port, folder / f"bare-{port}.log")


def serve(
    folder: Path, dispatch: str = "external", database: str | None = None, **environ: str
) -> contextlib.AbstractContextManager[Server]:
    """`wavehook serve` with two matching handlers, on a new SQLite file unless one is named."""
    port = free_port()
    return running(
        [
            str(Path(sys.executable).with_name("wavehook")),
            "serve",
            f"--port={port}",
            f"--dispatch={dispatch}",
            f"--database={database or f'sqlite:///{folder / dispatch}.db'}",
            "--handlers=tests.bench.idle",
        ],
        port,
        folder / f"serve-{port}.log",
        WAVEHOOK_WAVESPEED_SECRETS=SECRET,
        PYTHONPATH=str(ROOT),
        **environ,
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of ours over the bare route's, over all rounds of one run."""

    name: str
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        spread = f"{min(self.rounds):.2f} to {max(self.rounds):.2f}"
        return f"{self.name}: {self.median:.2f} (median of {len(self.rounds)}, {spread})"


def compare(ours: Server | Servers, base: Server | Servers, **options: int) -> tuple[Ratio, Ratio]:
    """Rates and p99 of ours over the bare route's, each round between two runs of the latter.

    Prints both with their spread, bare against bare, and the medians of the figures themselves.
    """
    bares, mine = [base.load(SEED, **options)], []
    for number in range(1, ROUNDS + 1):
        mine.append(ours.load(SEED + number, **options))
        bares.append(base.load(SEED, **options))
    assert all(set(each["statuses"]) <= {"200", "202"} for each in mine), mine
    around = list(pairwise(bares))

    def ratio(name: str, figure: str) -> Ratio:
        return Ratio(
            f"{name} against the bare route",
            [
                each[figure] / ((before[figure] + after[figure]) / 2)
                for each, (before, after) in zip(mine, around, strict=True)
            ],
        )

    rate, p99 = ratio("rate", "rate"), ratio("p99", "p99")
    print(f"\n{rate}\n{p99}")
    print(Ratio("bare against bare", [after["rate"] / before["rate"] for before, after in around]))
    for name, runs in (("ours", mine), ("bare", bares)):
        rates = statistics.median(run["rate"] for run in runs)
        p50 = statistics.median(run["p50"] for run in runs) * 1000
        p99s = statistics.median(run["p99"] for run in runs) * 1000
        print(f"{name}: {rates:,.0f} a second, p50 {p50:.2f} ms, p99 {p99s:.2f} ms")
    return rate, p99
