"""`wavehook serve` on an address that it cannot listen on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from receiver.cli.application import application

SECRET = "whsec_h1dden"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(application(), list(words), **options)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("192.0.2.1", "cannot listen on"), ("no such host", "cannot listen on")],
)
def test_serve_on_an_address_of_others(
    host: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that is not this machine's ends with 1, in words."""
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", SECRET)
    result = run("serve", "--host", host)
    assert (result.exit_code, expected in result.stderr) == (1, True)
    assert "Traceback" not in result.output
