"""What some tests need of the machine: where it is missing they are skipped, on CI they fail."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

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


def _need(missing: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {missing}")
    pytest.skip(f"{missing} is not on this machine")
