"""The submitter's commands: submit, result, wait, batch, models and simulate."""

from __future__ import annotations

from collections.abc import Callable

import typer

from submitter.cli.batch import batch_command
from submitter.cli.models import models_command
from submitter.cli.result import result_command, wait_command
from submitter.cli.submit import submit_command
from submitter.settings import SubmitSettings, from_environment
from submitter.simulator.cli import simulate


def register(app: typer.Typer, settings: Callable[[], SubmitSettings] = from_environment) -> None:
    """Add the commands to an application.

    Args:
        app: the application.
        settings: reads the settings when a command runs; BadSettings ends it with exit code 2.
    """
    app.command("submit")(submit_command(settings))
    app.command("result")(result_command(settings))
    app.command("wait")(wait_command(settings))
    app.command("batch")(batch_command(settings))
    app.command("models")(models_command(settings))
    app.command("simulate")(simulate)
