"""Fixtures for every suite."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from stamina import instrumentation

from receiver.telemetry import log
from tests.support.fork_server import FORK_SERVER

OURS = ("WAVEHOOK_", "WAVESPEED_")
TESTS = Path(__file__).parent
SLOW_FOLDERS = {"bench", "browser", "crash", "deploy", "docs", "integration", "typing"}
SERVICES = ("broker", "handlers", "postgres", "processes", "shared")
"""In the name of a file of tests/contract: its tests need a service or other processes."""
LOGGERS = (None, *log.TALKATIVE, "uvicorn", "uvicorn.error", "uvicorn.access")


def pytest_configure() -> None:
    """What is compiled is kept: each process begins with it. Properties are tried more on CI."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if os.environ.get("CI") != "true":
        # On CI a property is tried as often as Hypothesis has it: a hundred times.
        settings.register_profile("brief", max_examples=40)
        settings.load_profile("brief")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: many tests wait for a process or a server."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests by their folder, and start with the slowest suite."""
    for item in items:
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: "tests/crash/" not in item.nodeid)


def is_slow(item: pytest.Item) -> bool:
    """A test that needs a process, a server or a service, by its folder, file and parameter."""
    folder, *_, name = item.path.relative_to(TESTS).parts
    if folder != "contract":
        return folder in SLOW_FOLDERS
    return any(word in name for word in SERVICES) or "postgres" in item.name


@pytest.fixture
def anyio_backend() -> str:
    """All of it runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def nobodys_settings() -> None:
    """No test, and no process that one starts, depends on the settings of who runs it."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def nobodys_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The catalogue that is kept on disk is the tests' own, also in processes."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def nobodys_children() -> Iterator[None]:
    """Who forks processes for tests ends with them."""
    yield
    FORK_SERVER.close()


@pytest.fixture(autouse=True)
def logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What sets up the log of its process finds none, and leaves none to the next test."""
    for name in ("_json_stream", "_lowest"):
        monkeypatch.setattr(log, name, getattr(log, name))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for each, handlers, level, propagate in before:
        each.handlers[:] = handlers
        each.setLevel(level)
        each.propagate = propagate
    structlog.reset_defaults()
    instrumentation.set_on_retry_hooks(None)
