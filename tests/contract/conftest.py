"""Every backend, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.stores.base import Store
from receiver.stores.memory import MemoryStore
from receiver.stores.sqlite import SQLiteStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open, empty store."""
    store: Store = MemoryStore()
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "inbox.db")
    await store.open()
    yield store
    await store.close()
