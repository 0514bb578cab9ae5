"""Platforms whose disk does not last, or whose processes are frozen after a reply."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver import build
from receiver.config import Settings, read
from receiver.config.platform import platform_of
from receiver.database import settings_ledger
from receiver.errors import SettingsError
from receiver.stores.memory import MemoryStore
from submitter.ledger.memory import MemoryLedger
from tests.support import needed

SECRET = {"WAVEHOOK_WAVESPEED_SECRETS": "whsec_one"}
SIGNS = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "VERCEL": "Vercel",
    "K_SERVICE": "Cloud Run",
    "CLOUD_RUN_JOB": "Cloud Run",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
    "MODAL_IS_REMOTE": "Modal",
    "MODAL_TASK_ID": "Modal",
}
FREEZES = ("AWS_LAMBDA_FUNCTION_NAME", "VERCEL")


def settings(tmp_path: Path, **environ: str) -> Settings:
    reading = read(SECRET | environ, cwd=tmp_path)
    assert reading.faults == ()
    return reading.settings


def faults(settings: Settings) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        build.build(settings)
    return list(caught.value.faults)


@pytest.mark.parametrize(("sign", "name"), SIGNS.items())
def test_sqlite_is_refused_where_its_disk_does_not_last(
    tmp_path: Path, sign: str, name: str
) -> None:
    """F15: the start ends with the reason, and with what to set instead; no file is made."""
    found = settings(tmp_path, **{sign: "python"}, WAVEHOOK_DISPATCH="inline")

    (fault,) = faults(found)
    assert fault.startswith("WAVEHOOK_DATABASE = 'sqlite:///wavehook.db': ")
    assert name in fault
    assert "expected postgresql://" in fault
    for other in (build.worker, settings_ledger):
        with pytest.raises(SettingsError, match=name):
            other(found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sign", FREEZES)
def test_handlers_in_the_background_are_refused_where_they_would_be_frozen(
    tmp_path: Path, sign: str
) -> None:
    """F41: both faults at once."""
    first, second = faults(settings(tmp_path, **{sign: "1"}))

    assert first.startswith("WAVEHOOK_DISPATCH = 'background': ")
    assert "expected inline, or external" in first
    assert second.startswith("WAVEHOOK_DATABASE")


def test_a_store_that_is_given_is_taken(tmp_path: Path) -> None:
    """Who brings store and ledger knows whether they last."""
    found = settings(tmp_path, K_SERVICE="wavehook")

    parts = build.build(found, store=MemoryStore(), ledger=MemoryLedger())

    assert parts.lifecycle.keeps_running
    with pytest.raises(SettingsError, match="Cloud Run"):
        build.build(found, store=MemoryStore())


@pytest.mark.parametrize("sign", SIGNS)
def test_postgresql_is_taken_everywhere(tmp_path: Path, sign: str) -> None:
    """Nothing is connected to before the first need."""
    needed.module("asyncpg")
    found = settings(
        tmp_path,
        **{sign: "1"},
        WAVEHOOK_DATABASE="postgresql://127.0.0.1:1/x",
        WAVEHOOK_SEAL_KEYS="x3Q3zFmkJ0V1m4rU2fJb0C1cWkq7iZ1Qm5n2b8o9p0A=",
        WAVEHOOK_DISPATCH="external",
        WAVESPEED_API_KEY="key",
    )

    assert build.reconciles(build.build(found).settings) is (sign not in FREEZES)


def test_a_machine_of_ones_own() -> None:
    """An empty variable says nothing; Vercel is told from the Lambda that it runs on."""
    assert platform_of({}) is platform_of({"VERCEL": "", "PATH": "/bin"}) is None
    both = platform_of({"VERCEL": "1", "AWS_LAMBDA_FUNCTION_NAME": "x"})
    assert both is not None
    assert both.name == "Vercel"
