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
from hypothesis.configuration import set_hypothesis_home_dir
from stamina import instrumentation

from receiver.telemetry import log
from tests.support.fork_server import FORK_SERVER
from tests.support.paths import ROOT

OURS = ("WAVEHOOK_", "WAVESPEED_")
TESTS = Path(__file__).parent
SLOW_FOLDERS = {"bench", "browser", "crash", "deploy", "docs", "integration", "typing"}
SERVICES = ("broker", "handlers", "postgres", "processes", "shared")
"""In the name of a file of tests/contract: its tests need a service or other processes."""
LOGGERS = (None, *log.VERBOSE_LOGGERS, "uvicorn", "uvicorn.error", "uvicorn.access")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled modules, for faster processes, and Hypothesis' files in pytest's cache."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    set_hypothesis_home_dir(config.rootpath / ".pytest_cache" / "d" / "hypothesis")
    if os.environ.get("CI") != "true":
        # On CI each property is tried as often as Hypothesis' default says: a hundred times.
        settings.register_profile("brief", max_examples=40)
        settings.load_profile("brief")


def pytest_xdist_auto_num_workers() -> int:
    """Three workers on two processors: many tests wait for a process or a server."""
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
    """Run all async tests on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def no_settings_of_the_caller() -> None:
    """Remove the caller's settings from the environment of the tests and their processes."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give tests and their processes a cache folder of their own, for the catalogue on disk."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def nothing_left_in_the_clone() -> Iterator[None]:
    """Fails if a test left the default database or key in the clone."""
    before = set(ROOT.glob("wavehook.*"))
    yield
    left = set(ROOT.glob("wavehook.*")) - before
    assert not left, f"a test left {', '.join(path.name for path in left)} in the clone"


@pytest.fixture(autouse=True, scope="session")
def fork_server() -> Iterator[None]:
    """End the fork server with the tests."""
    yield
    FORK_SERVER.close()


@pytest.fixture(autouse=True)
def logging_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the logging of the process after a test that configures it."""
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
