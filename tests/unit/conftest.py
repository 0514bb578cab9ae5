"""The rule of this folder: a unit test starts no process and listens on no socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

FORBIDDEN = {"socket.bind", "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
"""Audit events of Python for processes and servers."""

_watched: list[str] = []


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if _watched and event in FORBIDDEN:
        raise AssertionError(f"{event} in {_watched[0]}: such a test belongs in tests/integration")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def neither_process_nor_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test that starts a process or binds a socket."""
    _watched.append(request.node.nodeid)
    yield
    _watched.clear()
