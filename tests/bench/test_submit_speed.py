"""The submitter's whole loop: `pytest -m bench -s -n0 tests/bench/test_submit_speed.py`.

The simulator and the receiver are processes of their own; all share this machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from receiver.build import build
from receiver.config import read
from receiver.telemetry.log import configure
from submitter import Limits, WaveSpeed
from submitter.ledger.base import Intent, IntentWritten, Ledger
from submitter.ledger.sqlite import SQLiteLedger
from submitter.prediction import Prediction
from submitter.settings import SubmitSettings
from submitter.simulator.server import serving
from submitter.simulator.webhook_sender import sign
from tests.bench.load import SECRET
from tests.bench.servers import ROUNDS, Server, running
from tests.support.servers import free_port

pytestmark = pytest.mark.bench

WAVEHOOK = str(Path(sys.executable).with_name("wavehook"))
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
TASKS = 1000
WINDOW = 100
"""Tasks in flight: as many as httpx has connections."""

SPEED = 2000
WAITS = 300
TOKEN = "a-token-for-the-bench"


@contextmanager
def simulator(folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [WAVEHOOK, "simulate", f"--port={port}", f"--speed={SPEED}", f"--secret={SECRET}"]
    with running(command, port, folder / "simulator.log") as server:
        yield server


@contextmanager
def receiver(folder: Path) -> Iterator[Server]:
    port = free_port()
    database = f"--database=sqlite:///{folder / 'bench.db'}"
    command = [WAVEHOOK, "serve", f"--port={port}", database]
    environ = {"WAVEHOOK_WAVESPEED_SECRETS": SECRET, "WAVEHOOK_ADMIN_TOKEN": TOKEN}
    with running(command, port, folder / "serve.log", **environ) as server:
        yield server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def settings(folder: Path, api: Server, to: Server) -> SubmitSettings:
    return SubmitSettings(
        api_key="any",
        base_url=url(api),
        public_url=url(to),
        database=f"sqlite:///{folder / 'bench.db'}",
    )


async def bare(api: Server) -> float:
    """Submits a second of a plain loop over httpx: no ledger, no webhook, no check."""
    first_frame = f"{url(api)}/first-frame.png"
    places = asyncio.Semaphore(WINDOW)
    async with httpx.AsyncClient(trust_env=False) as http:

        async def submit(number: int) -> None:
            async with places:
                answer = await http.post(
                    f"{url(api)}/api/v3/{MODEL}",
                    json={"prompt": f"bare {number}", "image": first_frame},
                    headers={"authorization": "Bearer any"},
                )
                assert answer.status_code == 200

        began = time.perf_counter()
        await asyncio.gather(*map(submit, range(TASKS)))
        return TASKS / (time.perf_counter() - began)


async def test_submits_a_second_at_the_limit(tmp_path: Path) -> None:
    """A full window: each submit waits for the webhook of an earlier task."""
    with simulator(tmp_path) as api, receiver(tmp_path) as to:
        limits = Limits(in_flight=WINDOW)
        rates, bares = [], []
        async with WaveSpeed(settings=settings(tmp_path, api, to), limits=limits) as wave:
            for number in range(ROUNDS):
                bares.append(await bare(api))
                began = time.perf_counter()
                done = await asyncio.gather(
                    *(
                        wave.run(
                            MODEL,
                            prompt=f"round {number}, task {task}",
                            image=f"{url(api)}/first-frame.png",
                        )
                        for task in range(TASKS)
                    )
                )
                rates.append(TASKS / (time.perf_counter() - began))
                assert {prediction.status for prediction in done} == {"completed"}
        async with httpx.AsyncClient(trust_env=False) as http:
            calls = (await http.get(f"{url(api)}/simulator/calls")).json()
    ratios = [rate / plain for rate, plain in zip(rates, bares, strict=True)]
    print(
        f"\n{statistics.median(rates):,.0f} submits a second with {WINDOW} in flight, "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of a bare loop "
        f"({statistics.median(bares):,.0f})"
    )
    tasks = TASKS * ROUNDS
    ours = calls["submit"] - tasks
    print(f"calls a task: {ours / tasks:.3f} submits, {calls['result'] / tasks:.3f} GETs")
    assert ours == tasks
    assert calls["result"] == 0


@asynccontextmanager
async def receiving_here(folder: Path) -> AsyncIterator[str]:
    """The receiver in this process; gives its URL."""
    environ = {
        "WAVEHOOK_DATABASE": f"sqlite:///{folder / 'bench.db'}",
        "WAVEHOOK_WAVESPEED_SECRETS": SECRET,
    }
    configure(level="error")
    parts = build(read(environ, cwd=folder).settings)
    async with serving(parts.app, lifespan=True) as here:
        yield here


async def accepted(ledger: Ledger, name: str) -> list[str]:
    """Keys of tasks that are accepted, and have not ended; each is its task's id too."""
    keys = [f"{name}-{number}" for number in range(WAITS)]
    for key in keys:
        now = time.time()
        intent = Intent(key=key, model=MODEL, input={}, digest="", until=now + 60)
        assert isinstance(await ledger.intend(intent, Limits(), now), IntentWritten)
        created = Prediction.parse({"id": key, "status": "created", "model": MODEL})
        assert created is not None
        await ledger.accept(key, created, now, expected_at=now + 3600)
    return keys


async def way(name: str, to: str, wave: WaveSpeed, keys: list[str]) -> None:
    """From the sender's POST to the caller that awaits the result, one event after the other."""
    waits = [asyncio.create_task(wave.wait(key)) for key in keys]
    await asyncio.sleep(1)
    took = []
    async with httpx.AsyncClient(trust_env=False) as http:
        for key, wait in zip(keys, waits, strict=True):
            body = json.dumps({"id": key, "status": "completed", "model": MODEL}).encode()
            now = int(time.time())
            headers = {
                "webhook-id": key,
                "webhook-timestamp": str(now),
                "webhook-signature": sign(SECRET, key, now, body),
            }
            began = time.perf_counter()
            answer = await http.post(f"{to}/webhooks/wavespeed", content=body, headers=headers)
            assert answer.status_code == 202
            assert (await asyncio.wait_for(wait, 30)).status == "completed"
            took.append(time.perf_counter() - began)
    took.sort()
    p50, p99 = took[WAITS // 2] * 1000, took[WAITS * 99 // 100] * 1000
    print(f"\nfrom the POST to the awaiting caller, {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def test_way_to_the_awaiting_caller(tmp_path: Path) -> None:
    """The receiver in one process with the caller; in another; and known by its URL alone."""
    here = SubmitSettings(
        api_key="any",
        base_url="http://127.0.0.1:9",
        public_url="http://127.0.0.1:9",
        database=f"sqlite:///{tmp_path / 'bench.db'}",
    )
    ledger = SQLiteLedger(tmp_path / "bench.db")
    await ledger.open()
    async with receiving_here(tmp_path) as to, WaveSpeed(settings=here) as wave:
        await way("one process", to, wave, await accepted(ledger, "one"))
    with receiver(tmp_path) as server:
        async with WaveSpeed(settings=here) as wave:
            await way("one database", url(server), wave, await accepted(ledger, "two"))
        far = replace(
            here,
            public_url=url(server),
            database=f"sqlite:///{tmp_path / 'far.db'}",
            admin_token=TOKEN,
        )
        other = SQLiteLedger(tmp_path / "far.db")
        await other.open()
        async with WaveSpeed(settings=far) as wave:
            await way("over HTTP", url(server), wave, await accepted(other, "three"))
        await other.close()
    await ledger.close()
