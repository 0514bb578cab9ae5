"""What some tests need of the machine: where it is missing they are skipped, on CI they fail."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn
from urllib.parse import urlsplit

import pytest


def programs(*names: str) -> None:
    """These programs, on PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        _need(", ".join(missing))


def module(name: str) -> ModuleType:
    """A module that not every platform has."""
    try:
        return import_module(name)
    except ImportError:
        return _need(f"the module {name}")


def linux() -> None:
    """Linux's own: `/proc`, and limits of another process."""
    if not Path("/proc/self/stat").exists():
        _need("/proc")


def postgres() -> str:
    """A PostgreSQL server, which TEST_POSTGRES names; gives its address."""
    return _server(
        "PostgreSQL", "asyncpg", "TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/test"
    )


def nats() -> str:
    """A NATS server with JetStream, which TEST_NATS names; gives its address."""
    return _server("NATS", "nats", "TEST_NATS", "nats://127.0.0.1:4222")


def rabbitmq() -> str:
    """A RabbitMQ server, which TEST_RABBITMQ names; gives its address."""
    return _server("RabbitMQ", "aio_pika", "TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672/")


def redis() -> str:
    """A Redis server, which TEST_REDIS names; gives its address."""
    return _server("Redis", "redis", "TEST_REDIS", "redis://127.0.0.1:6379/0")


def mqtt() -> str:
    """An MQTT broker, which TEST_MQTT names; gives its address."""
    return _server("MQTT", "paho", "TEST_MQTT", "mqtt://127.0.0.1:1883")


def _server(name: str, client: str, variable: str, usual: str) -> str:
    if find_spec(client) is None:
        # Without the extra no server is needed, on CI neither.
        pytest.skip(f"{client} is not installed")
    url = os.environ.get(variable, usual)
    address, default = urlsplit(url), urlsplit(usual)
    host, port = address.hostname or "127.0.0.1", address.port or default.port
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        _need(f"a {name} server at {host}:{port}")
    return url


def initdb() -> Path:
    """The folder of PostgreSQL's own programs, for a server that a test starts."""
    if find_spec("asyncpg") is None:
        pytest.skip("asyncpg is not installed")
    on_path = shutil.which("initdb")
    # Debian keeps them off PATH.
    found = (
        [Path(on_path).resolve()]
        if on_path
        else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    )
    if not found:
        _need("PostgreSQL's initdb")
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        _need("a user postgres, whom initdb does not refuse as it does root")
    return found[-1].parent


def _need(missing: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {missing}")
    pytest.skip(f"{missing} is not on this machine")
