"""The ack path on PostgreSQL: `pytest -m bench -s -n0 tests/bench/test_postgres_ack.py`.

The database, the servers and the load share this machine, and its two cores.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.postgres import database
from tests.bench.servers import Servers, bare, compare

pytestmark = pytest.mark.bench


def test_one_process(tmp_path: Path) -> None:
    """64 connections, every event new, two handlers each, against one bare route."""
    with database() as found, bare(tmp_path) as base, found.serve(tmp_path) as ours:
        rate, _ = compare(ours, base, count=10_000)
    assert rate.median > 0


def test_two_processes_on_one_database(tmp_path: Path) -> None:
    """The same load, spread over two of each."""
    with (
        database() as found,
        bare(tmp_path) as one,
        bare(tmp_path) as two,
        found.serve(tmp_path) as first,
        found.serve(tmp_path) as second,
    ):
        rate, _ = compare(Servers((first, second)), Servers((one, two)), count=10_000)
    assert rate.median > 0


def test_one_event_in_flight(tmp_path: Path) -> None:
    """One connection: the latency of one delivery, its commit included."""
    with database() as found, bare(tmp_path) as base, found.serve(tmp_path) as ours:
        rate, _ = compare(ours, base, count=2_000, connections=1)
    assert rate.median > 0
