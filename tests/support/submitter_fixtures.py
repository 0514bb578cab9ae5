"""Fixtures for the submitter's suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import stamina

from submitter.ledger.base import Ledger
from submitter.ledger.memory import MemoryLedger
from submitter.ledger.sqlite import SQLiteLedger


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries follow each other at once, and nobody's hooks hear of them."""
    with stamina.set_testing(True, attempts=5, cap=True):
        stamina.instrumentation.set_on_retry_hooks([])
        yield


@pytest.fixture
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open ledger, the reference unless a test wants both kinds."""
    kind = getattr(request, "param", "memory")
    ledger = MemoryLedger() if kind == "memory" else SQLiteLedger(tmp_path / "ledger.db")
    await ledger.open()
    yield ledger
    await ledger.close()
