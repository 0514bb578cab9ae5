"""Fixtures for every suite."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """All of it runs on asyncio."""
    return "asyncio"
