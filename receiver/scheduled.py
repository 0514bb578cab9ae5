"""`drain`: what a platform's schedule calls, where it calls a function and no URL."""

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

DEADLINE = 45.0
"""Seconds where nothing else is asked for: of a schedule that calls every minute."""


def drain(
    deadline: float = DEADLINE,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Mapping[str, int]:
    """Do what is due, as `POST /api/drain`, on an event loop of its own.

    Args:
        deadline: seconds; what has not ended then is given back.
        environ: instead of the process's own.
        cwd: instead of the working directory.

    Returns:
        See `DrainRound.run`.

    Raises:
        SettingsError: with every fault.
        StoreError: the database cannot be used.
    """
    reading = read(os.environ if environ is None else environ, cwd=cwd or Path.cwd())
    if not structlog.is_configured():
        configure(level=reading.settings.log_level)
    return asyncio.run(
        _run(*build.drain_round(reading.settings, faults=reading.faults), deadline=deadline)
    )


async def _run(draining: DrainRound, lifecycle: Lifecycle, *, deadline: float) -> Mapping[str, int]:
    await lifecycle.open()
    try:
        return await draining.run(None, deadline)
    finally:
        await lifecycle.stop()
