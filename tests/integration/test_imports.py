"""What an import loads: measured in a Python of its own, because import cost is start-up cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from receiver.errors import SettingsError
from receiver.handlers import command

HEAVY = {"httpx", "jsonschema", "typer", "stamina", "cryptography"}
SECRET = "whsec_c2VjcmV0"

WITHOUT_POSIX = """
import asyncio, importlib, os, pkgutil, signal, socket, sqlite3, subprocess, sys, tempfile
import cryptography.fernet, httpx, jsonschema, prometheus_client, pydantic, rich, stamina
import starlette.applications, structlog, typer, uvicorn
from starlette import requests, responses, routing

for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty", "uvloop"):
    sys.modules[name] = None
for module, names in {
    os: "O_CLOEXEC O_NOFOLLOW chown fork getuid geteuid killpg setsid sysconf uname",
    signal: "SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGQUIT SIGCHLD SIGPIPE pthread_sigmask",
    socket: "AF_UNIX SO_REUSEPORT TCP_CORK TCP_NOPUSH",
}.items():
    for name in names.split():
        vars(module).pop(name, None)

import receiver, submitter
count = 0
for package in (receiver, submitter):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
        count += 1
print(count)
"""


DRIVERS = {
    "sqlite:///x.db": {"sqlite3", "receiver.stores.sqlite", "submitter.ledger.sqlite"},
    "postgresql://127.0.0.1:1/x": {
        "asyncpg",
        "receiver.stores.postgres",
        "submitter.ledger.postgres",
    },
}


def run(code: str, folder: Path | None = None, **environ: str) -> str:
    """What a fresh Python prints; with a folder it has these environment variables alone."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**environ, "PATH": ""} if folder else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def loaded_by(statement: str, folder: Path | None = None, **environ: str) -> set[str]:
    """The names of all modules that are loaded after a statement."""
    return set(run(f"{statement}\nimport sys; print(*sys.modules)", folder, **environ).split())


def test_nothing_of_posix_is_needed_to_import() -> None:
    """All modules load on Windows and macOS; a part that needs POSIX says so when it is used."""
    assert int(run(WITHOUT_POSIX)) > 90


def test_the_command_handler_needs_process_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: where they are missing, the start fails and says so; no program is left behind later."""
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(SettingsError, match=r"handlers\.x\.use: 'command' does not work on this"):
        command.create("x", {"run": ["sh"]})


def test_importing_the_receiver_does_no_work() -> None:
    """`import receiver` loads the standard library and nothing else, not even its own modules."""
    code = (
        "import sys; before = set(sys.modules); import receiver;"
        "new = set(sys.modules) - before;"
        "print(*sorted(m for m in new if m.partition('.')[0] not in sys.stdlib_module_names))"
    )
    assert run(code).split() == ["receiver"]


def test_importing_the_submitter_does_no_work() -> None:
    """`import submitter`, and what the receiver needs of it, load no heavy package."""
    assert not loaded_by("import submitter, submitter.prediction") & HEAVY


def test_opening_tokens_needs_no_client() -> None:
    """The receiver opens tokens without an HTTP client or a validator."""
    key = "Seal(['k' * 43 + '='])"
    assert not loaded_by(f"from submitter import Seal; {key}") & HEAVY
    loaded = loaded_by(f"from submitter import Seal; {key}.seal(1, model=None, now=0)")
    assert loaded & HEAVY == {"cryptography"}


def test_the_client_needs_no_validator_until_it_checks() -> None:
    """The validator is loaded with the first input."""
    assert not loaded_by("from submitter import WaveSpeed") & {"jsonschema", "typer"}


def test_building_requests_needs_no_http_client() -> None:
    """Requests are built and responses are read without httpx: another client can be used."""
    loaded = loaded_by("import submitter.api.requests, submitter.api.responses")
    assert not loaded & {"httpx", "stamina", "jsonschema", "cryptography"}


def test_the_test_kit_needs_no_test_framework() -> None:
    """`receiver.testing` works where pytest is not installed, and loads no HTTP client."""
    loaded = loaded_by("import sys; sys.modules['pytest'] = None\nimport receiver.testing")
    assert not {name.partition(".")[0] for name in loaded} & {"httpx", "typer"}


@pytest.mark.parametrize("database", DRIVERS)
def test_only_the_named_database_is_imported(tmp_path: Path, database: str) -> None:
    """With SQLite no PostgreSQL driver is loaded, and the other way round."""
    if database.startswith("postgresql"):
        pytest.importorskip("asyncpg")
    environ = {
        "WAVEHOOK_WAVESPEED_SECRETS": SECRET,
        "WAVEHOOK_DATABASE": database,
        "WAVEHOOK_SEAL_KEYS": Fernet.generate_key().decode(),
    }
    loaded = loaded_by("from receiver.build import app; app()", tmp_path, **environ)
    assert loaded & set().union(*DRIVERS.values()) == DRIVERS[database]


def test_the_receiving_path_imports_no_client_and_no_command_line(tmp_path: Path) -> None:
    """With the secrets set, building the app loads no HTTP client and no command line."""
    loaded = loaded_by(
        "from receiver.build import app; app()", tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET
    )
    assert not loaded & {"httpx", "typer", "jsonschema", "stamina", "uvicorn"}


def test_the_command_line_loads_no_client_before_a_command_needs_one() -> None:
    """`wavehook --help` assembles all commands without an HTTP client, a server or models."""
    unwanted = {"httpx", "uvicorn", "starlette", "jsonschema", "pydantic", "cryptography"}
    assert not loaded_by("from receiver.cli.application import application") & unwanted


def test_the_web_layer_loads_no_client_no_command_line_and_no_validator() -> None:
    """Importing the ASGI app and the ack path builds nothing and loads no heavy package."""
    modules = "receiver.web.asgi, receiver.web.app, receiver.intake, receiver.telemetry.log"
    unwanted = {"httpx", "typer", "jsonschema", "pydantic", "prometheus_client", "receiver.build"}
    assert not loaded_by(f"import {modules}") & unwanted


def test_a_start_from_the_environment_loads_no_more(tmp_path: Path) -> None:
    """Without handlers and sections the app needs no HTTP client, no models and no keys."""
    code = "from receiver import build; build.app({'WAVEHOOK_WAVESPEED_SECRETS': 'whsec_one'})"
    unwanted = {"httpx", "typer", "jsonschema", "pydantic", "cryptography", "uvicorn"}
    assert not loaded_by(code, tmp_path) & unwanted
