"""The ack path against a bare route: `pytest -m bench -s -n0 tests/bench/test_ack.py`."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, cast

import pytest

from receiver.event import Event, Receipt
from receiver.handlers.routing import Route
from receiver.intake import Intake, TrustedSource
from receiver.sources.wavespeed import WaveSpeedSource
from receiver.stores.base import Plan, Store
from receiver.telemetry.log import configure, log_hook
from receiver.telemetry.metrics import Metrics
from receiver.testing import deliveries, event
from receiver.web.app import create_app
from tests.bench.load import SECRET
from tests.bench.servers import bare, compare, serve

pytestmark = pytest.mark.bench


def test_distinct_events(tmp_path: Path) -> None:
    """64 connections, every event new, two handlers each: at least 0.35 of the bare rate."""
    with bare(tmp_path) as base, serve(tmp_path) as ours:
        rate, _ = compare(ours, base, count=20_000)
    assert rate.median >= 0.35


def test_distinct_events_with_handlers_in_the_same_process(tmp_path: Path) -> None:
    """The same with `background` dispatch: both handlers of every event run beside it."""
    with bare(tmp_path) as base, serve(tmp_path, "background") as ours:
        rate, _ = compare(ours, base, count=10_000)
    assert rate.median > 0


def test_nine_of_ten_are_duplicates(tmp_path: Path) -> None:
    """64 connections, each event sent ten times."""
    with bare(tmp_path) as base, serve(tmp_path) as ours:
        rate, _ = compare(ours, base, count=20_000, distinct=2_000)
    assert rate.median >= 0.35


def test_one_event_in_flight(tmp_path: Path) -> None:
    """One connection: the latency of one delivery, its fsync included."""
    with bare(tmp_path) as base, serve(tmp_path) as ours:
        rate, _ = compare(ours, base, count=3_000, connections=1)
    assert rate.median > 0


def test_memory(tmp_path: Path) -> None:
    """Peak resident memory under the ack load: at most twice the bare route's."""
    with bare(tmp_path) as base, serve(tmp_path) as ours:
        for number in range(3):
            base.load(number, count=20_000)
            ours.load(number, count=20_000)
        ratio = ours.peak() / base.peak()
        print(f"\npeak memory: {ours.peak() / 2**20:.0f} MiB, {ratio:.2f} times the bare route's")
    assert ratio <= 2


class Discard(io.StringIO):
    """A log that is not kept."""

    def write(self, text: str) -> int:
        return len(text)


class Instant:
    """A store that keeps nothing and answers at once."""

    async def add(self, event: Event, plan: Plan) -> Receipt:
        return Receipt(event.id, duplicate=False)


async def test_the_app_alone() -> None:
    """CPU time of the app for one delivery, without server and store: the best of 150 rounds.

    The best round says what a change of the code costs, even on a machine that is not quiet.
    """
    source, store = WaveSpeedSource(), cast("Store", Instant())
    intake = Intake(
        {"wavespeed": TrustedSource(source, [source.key(SECRET)])},
        [Route("first"), Route("second")],
        store,
    )
    configure(Discard())
    app = create_app(
        intake=intake, store=store, hooks=[log_hook], metrics=Metrics(), dispatch="external"
    )
    made = [deliveries.wavespeed(event(id=f"t{n}").body, SECRET) for n in range(200)]
    rounds = []
    for _ in range(150):
        began = time.thread_time()
        for one in made:
            body = {"type": "http.request", "body": one.body}

            async def receive(body: dict[str, Any] = body) -> dict[str, Any]:
                return body

            async def send(message: Any) -> None:
                assert message.get("status", 202) == 202

            await app(
                {
                    "type": "http",
                    "method": "POST",
                    "path": "/webhooks/wavespeed",
                    "root_path": "",
                    "query_string": b"",
                    "headers": list(one.headers),
                },
                receive,
                send,
            )
        rounds.append(time.thread_time() - began)
    print(f"\nthe app alone: {min(rounds) / len(made) * 1e6:.1f} \u00b5s of CPU a delivery")
