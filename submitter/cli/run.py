"""Runs the work of a command, and turns errors and signals into messages and exit codes."""

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
    suggest,
)
from submitter.prediction import JSON
from submitter.settings import SubmitSettings

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

    from submitter.client import WaveSpeed


def json_line(fields: Mapping[str, JSON]) -> None:
    """Print one JSON object on one line of standard output."""
    typer.echo(json.dumps(fields))


def plain(text: str) -> str:
    """Foreign text, without characters that control a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_retries() -> None:
    """Print each retry of an API request on standard error, instead of stamina's log line."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([_print_retry])


def silence_retries() -> None:
    """Print no retries: with many requests, some are always retried."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([])


def _print_retry(details: RetryDetails) -> None:
    typer.echo(f"{details.caused_by}; retrying in {details.wait_for:.1f} s", err=True)


T = TypeVar("T")

USAGE_ERRORS = (BadInput, BadSettings, LedgerMismatch)
"""Errors that end with exit code 2."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and SIGTERM, as in shells: 128 plus the signal's number."""


def run(
    settings: Callable[[], SubmitSettings],
    work: Callable[[SubmitSettings], Coroutine[Any, Any, T]],
    *,
    interrupted: str = "Interrupted.",
    quiet: bool = False,
) -> T:
    """Run the work of a command; an error or a signal ends the command with its exit code.

    Args:
        settings: reads the settings; BadSettings ends the command with exit code 2.
        work: the work.
        interrupted: the message after Ctrl-C or SIGTERM.
        quiet: do not print retries.
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
    """Print how to find the right id of a model that the API does not know.

    Args:
        wave: the client, entered.
        model: the unknown id.
    """
    hint = suggest(model, [each.id for each in await wave.catalogue.models()])
    typer.echo(f"`wavehook models` lists the models{plain(hint)}", err=True)


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Cancel the work on SIGTERM as on Ctrl-C; a second SIGTERM ends the process at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        if task is not None:
            task.cancel()

    # Signals reach only the main thread, and no event loop on Windows.
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGTERM, stop)
    return await work


def print_error(error: SubmitterError, *, about: str = "") -> None:
    """Print an error on standard error.

    Args:
        error: the error.
        about: the one of several tasks that failed; printable.
    """
    typer.echo(f"Error: {about + ': ' if about else ''}{error}", err=True)
    # The API may repeat the input; the person at the terminal has sent it.
    if isinstance(error, ApiError) and error.message:
        typer.echo(f"The API says: {error.message}", err=True)
    if isinstance(error, SubmissionUnknown) and error.key:
        typer.echo(
            f"`wavehook wait {plain(error.key)}` settles it too, and waits for its result.",
            err=True,
        )
