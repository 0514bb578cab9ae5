"""The ack path against a bare route: `pytest -m bench -s -n0 tests/bench/test_ack.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

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
