"""`wavehook` in this process, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from receiver.cli.application import application


def run(*words: str, **options: Any) -> Result:
    """Run a command; the options go to `CliRunner.invoke`."""
    return CliRunner().invoke(application(), list(words), **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
