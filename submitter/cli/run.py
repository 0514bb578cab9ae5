"""One end for all that can go wrong in a command that talks to the API.

What commands print, alike for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from submitter.errors import (
    ApiError,
    BadInput,
    BadSettings,
    LedgerMismatch,
    SubmissionUnknown,
    SubmitterError,
)
from submitter.prediction import JSON
from submitter.settings import SubmitSettings
from submitter.suggest import suggest

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

    from submitter.client import WaveSpeed


def json_line(fields: Mapping[str, JSON]) -> None:
    """One object on one line of standard output."""
    typer.echo(json.dumps(fields))


def plain(text: str) -> str:
    """Text of others, without what would steer a terminal (F17)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_retries() -> None:
    """Tell the person who waits that the API is asked again; stamina would log it."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([_print_retry])


def silence_retries() -> None:
    """Tell nobody: where many questions are asked, some are always asked again."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([])


def _print_retry(details: RetryDetails) -> None:
    typer.echo(f"{details.caused_by}; asking again in {details.wait_for:.1f} s", err=True)


T = TypeVar("T")

USAGE_ERRORS = (BadInput, BadSettings, LedgerMismatch)
"""Errors that end with exit code 2."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as shells tell of them too."""


def run(
    settings: Callable[[], SubmitSettings],
    work: Callable[[SubmitSettings], Coroutine[Any, Any, T]],
    *,
    interrupted: str = "Interrupted.",
    quiet: bool = False,
) -> T:
    """Do the work of a command; ends the command where it fails, or is stopped by a signal.

    Args:
        settings: gives the settings; raises BadSettings for exit code 2.
        work: what to do.
        interrupted: what to say where Ctrl-C or SIGTERM stops it.
        quiet: whether not to tell of each question that is asked again.
    """
    silence_retries() if quiet else print_retries()
    try:
        return asyncio.run(_stoppable(work(settings())))
    except SubmitterError as error:
        print_error(error)
        raise typer.Exit(2 if isinstance(error, USAGE_ERRORS) else 1) from None
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        typer.echo(interrupted, err=True)
        by_hand = isinstance(error, KeyboardInterrupt)
        raise typer.Exit(INTERRUPTED if by_hand else TERMINATED) from None


async def suggest_model(wave: WaveSpeed, model: str) -> None:
    """Say what to do about a model that the API does not know.

    Args:
        wave: the client, entered.
        model: as it was written.
    """
    hint = suggest(model, [each.id for each in await wave.catalogue.models()])
    typer.echo(f"`wavehook models` lists the models{plain(hint)}", err=True)


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Do it; SIGTERM cancels it as Ctrl-C does, and a second one ends the process at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        if task is not None:
            task.cancel()

    # Only a main thread hears of signals, and a loop on Windows of none.
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGTERM, stop)
    return await work


def print_error(error: SubmitterError, *, about: str = "") -> None:
    """Say what went wrong.

    Args:
        error: what.
        about: with which of several things; printable.
    """
    typer.echo(f"Error: {about + ': ' if about else ''}{error}", err=True)
    # The person at the terminal is the one who sent what the API may repeat here.
    if isinstance(error, ApiError) and error.message:
        typer.echo(f"The API says: {error.message}", err=True)
    if isinstance(error, SubmissionUnknown) and error.key:
        typer.echo(
            f"`wavehook wait {plain(error.key)}` settles it too, and waits for it.", err=True
        )
