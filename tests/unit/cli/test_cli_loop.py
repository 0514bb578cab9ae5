"""The event loop of commands that run for long."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from receiver.cli.startup import GC_THRESHOLD_OBJECTS, run, tune_gc
from tests.support import needed


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_a_command_runs_on_uvloop() -> None:
    """The extra `speed` is for workers too."""
    needed.module("uvloop")
    assert run(loop_module()).startswith("uvloop")


def test_a_command_runs_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is not needed."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(loop_module()).startswith("asyncio")


def test_cycles_are_looked_for_rarely() -> None:
    """What a started process holds is not looked at again."""
    before = gc.get_threshold()
    try:
        tune_gc()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == GC_THRESHOLD_OBJECTS
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
