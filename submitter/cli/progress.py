"""Progress of a running batch: a bar on a terminal, or a line every 15 seconds."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import typer

from submitter.batch.rows import RowState
from submitter.cli.run import plain

if TYPE_CHECKING:
    from submitter.batch.batch import Batch

REDRAW_INTERVAL_S = 0.2
"""Seconds between two updates on a terminal."""

LINE_INTERVAL_S = 15.0
"""Seconds between two lines if standard error is not a terminal."""


@contextlib.asynccontextmanager
async def shown(batch: Batch) -> AsyncIterator[None]:
    """Show the progress of a batch on standard error while a block runs."""
    began = time.monotonic()

    def words() -> str:
        return status_line(batch, time.monotonic() - began)

    showing = _draw(batch, words) if sys.stderr.isatty() else _tell(words)
    task = asyncio.create_task(showing)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    typer.echo(words(), err=True)


def status_line(batch: Batch, seconds: float) -> str:
    """One line with the counts of a batch, its cost and the time left.

    Args:
        batch: the batch.
        seconds: running time so far.
    """
    counts = batch.counts
    ended = counts[RowState.COMPLETED] + counts[RowState.FAILED]
    running, waiting = counts[RowState.RUNNING], counts[RowState.WAITING]
    words = [
        f"submitted {ended + running}",
        f"running {running}",
        f"done {counts[RowState.COMPLETED]}",
        f"failed {counts[RowState.FAILED]}",
    ]
    refused = counts[RowState.REJECTED] + counts[RowState.INVALID]
    words += [f"faulty {refused}"] if refused else []
    words += [f"to send {waiting}"] if waiting else []
    words.append(f"{batch.cost:.2f} USD")
    if running + waiting and batch.ended:
        words.append(f"about {_time(seconds / batch.ended * (running + waiting))} left")
    if batch.stopped is not None:
        words.append("submits stopped")
    elif batch.backoff.problem is not None:
        words.append(f"retrying: {plain(batch.backoff.problem)}")
    elif waiting and not running:
        words.append("waiting for the limits")
    return ", ".join(words)


async def _tell(words: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(LINE_INTERVAL_S)
        typer.echo(words(), err=True)


async def _draw(batch: Batch, words: Callable[[], str]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(batch.rows))
        while True:
            left = batch.counts[RowState.RUNNING] + batch.counts[RowState.WAITING]
            progress.update(bar, completed=len(batch.rows) - left, description=words())
            progress.refresh()
            await asyncio.sleep(REDRAW_INTERVAL_S)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} h"
