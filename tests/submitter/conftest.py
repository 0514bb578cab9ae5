"""Fixtures for the submitter's suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina

NAMES = ("WAVESPEED_API_KEY", "WAVESPEED_BASE_URL", "WAVEHOOK_PUBLIC_URL", "WAVEHOOK_SEAL_KEYS")


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries follow each other at once, and nobody's hooks hear of them."""
    with stamina.set_testing(True, attempts=5, cap=True):
        stamina.instrumentation.set_on_retry_hooks([])
        yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the settings of the machine that it runs on."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
