"""Processes that end with their test."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.crash.fleet import Fleet
from tests.crash.receiving import WAVEHOOK, Receiver, launch
from tests.support.postgres_schemas import fresh_schema


class Start(Protocol):
    """Starts a receiver and waits until it listens."""

    def __call__(self, *program: str, **settings: str) -> Awaitable[Receiver]: ...


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts `wavehook serve`, or another program, in the test's folder."""
    async with AsyncExitStack() as stack:

        async def start(*program: str, **settings: str) -> Receiver:
            receiver = await launch(tmp_path, program or (*WAVEHOOK, "serve"), **settings)
            stack.push_async_callback(receiver.close)
            return await receiver.started()

        yield start


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Nobody yet, on a schema of its own."""
    async with fresh_schema() as (url, schema), AsyncExitStack() as stack:
        yield Fleet(tmp_path, url, schema, stack)


@pytest.fixture
def seed() -> int:
    """Of the moments; a failed run shows it, and TEST_SEED repeats it."""
    seed = int(os.environ.get("TEST_SEED") or int.from_bytes(os.urandom(4)))
    sys.stdout.write(f"TEST_SEED={seed}\n")
    return seed
