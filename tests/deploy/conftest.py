"""A deployment on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from receiver.telemetry.log import configure
from tests.deploy.functions import Target
from tests.support.asgi import Log
from tests.support.postgres_schemas import fresh_schema
from tests.support.postgres_server import Server


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """One that nobody else uses; the test has no event loop of its own."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        url, schema = runner.run(stack.enter_async_context(fresh_schema()))
        yield Target(Server(url, schema), tmp_path)
        runner.run(stack.aclose())


@pytest.fixture
def log() -> Log:
    """The log of this process, in memory."""
    log = Log()
    configure(log.stream)
    return log
