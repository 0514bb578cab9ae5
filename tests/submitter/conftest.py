"""Fixtures for the submitter's suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries follow each other at once, and nobody's hooks hear of them."""
    with stamina.set_testing(True, attempts=5, cap=True):
        stamina.instrumentation.set_on_retry_hooks([])
        yield
