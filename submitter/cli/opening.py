"""One end for all that can go wrong in a command that talks to the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from submitter.errors import ApiError, BadInput, BadSettings, SubmissionUnknown, SubmitterError
from submitter.printing import hush_retries, plain, tell_retries
from submitter.settings import SubmitSettings

T = TypeVar("T")

INTERRUPTED = 130


def run(
    settings: Callable[[], SubmitSettings],
    work: Callable[[SubmitSettings], Coroutine[Any, Any, T]],
    *,
    interrupted: str = "Interrupted.",
    hushed: bool = False,
) -> T:
    """Do the work of a command; ends the command where it fails.

    Args:
        settings: gives the settings; raises BadSettings for exit code 2.
        work: what to do.
        interrupted: what to say where a person stops it.
        hushed: whether not to tell of each question that is asked again.
    """
    hush_retries() if hushed else tell_retries()
    try:
        return asyncio.run(work(settings()))
    except SubmitterError as error:
        tell(error)
        raise typer.Exit(2 if isinstance(error, BadInput | BadSettings) else 1) from None
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(INTERRUPTED) from None


def tell(error: SubmitterError, *, about: str = "") -> None:
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
