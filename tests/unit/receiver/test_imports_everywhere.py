"""Every module of ours can be imported where POSIX is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from receiver.errors import SettingsError
from receiver.handlers import command

ELSEWHERE = """
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


def test_nothing_of_posix_is_needed_to_import() -> None:
    """On Windows and macOS all modules load; what a platform lacks is told by who needs it."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 90


def test_the_command_handler_needs_process_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: where they are missing the start says so, and no program is left behind later."""
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(SettingsError, match=r"handlers\.x\.use: 'command' does not work on this"):
        command.create("x", {"run": ["sh"]})
