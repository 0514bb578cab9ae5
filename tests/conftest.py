"""Fixtures for every suite."""

from __future__ import annotations

import os

import pytest

OURS = ("WAVEHOOK_", "WAVESPEED_")


@pytest.fixture
def anyio_backend() -> str:
    """All of it runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def nobodys_settings() -> None:
    """No test, and no process that one starts, depends on the settings of who runs it."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
