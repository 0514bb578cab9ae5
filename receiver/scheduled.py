"""Scheduled drain, for platforms whose schedule calls a function instead of a URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from receiver import build
from receiver.config import read
from receiver.results.drain_round import DrainRound
from receiver.telemetry.log import configure
from receiver.web.lifecycle import Lifecycle

DRAIN_DEADLINE_S = 45.0
"""Default deadline: enough for a schedule that runs every minute."""


def drain(
    deadline: float = DRAIN_DEADLINE_S,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Mapping[str, int]:
    """Run everything that is due, as `POST /api/drain` does, on a new event loop.

    Args:
        deadline: seconds; unfinished dispatches are released then.
        environ: the environment; by default the process's own.
        cwd: the folder of `wavehook.toml`; by default the working directory.

    Returns:
        The counts `ran`, `reconciled` and `more` of `DrainRound.run`.

    Raises:
        SettingsError: all faults of the settings.
        StoreError: the database cannot be used.
    """
    reading = read(os.environ if environ is None else environ, cwd=cwd or Path.cwd())
    if not structlog.is_configured():
        configure(level=reading.settings.log_level)
    return asyncio.run(
        _run(*build.drain_round(reading.settings, faults=reading.faults), deadline=deadline)
    )


async def _run(round: DrainRound, lifecycle: Lifecycle, *, deadline: float) -> Mapping[str, int]:
    await lifecycle.open()
    try:
        return await round.run(None, deadline)
    finally:
        await lifecycle.stop()
