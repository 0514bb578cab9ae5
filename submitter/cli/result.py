"""The command `wavehook result`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from submitter.cli.opening import run
from submitter.cli.predictions import fields, show
from submitter.prediction import Prediction
from submitter.printing import json_line
from submitter.settings import SubmitSettings


def result_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: gives the settings when the command runs; raises BadSettings for exit code 2.
    """

    def result(
        task_id: Annotated[
            str, typer.Argument(help="The task's id.", metavar="TASK_ID", show_default=False)
        ],
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object: the task with all fields.")
        ] = False,
    ) -> None:
        """Ask the API once how a task stands.

        Example: wavehook result 7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f --json

        Exit codes: 0 asked, 1 the task ended badly or the API did not say, 2 usage or settings.
        """

        async def ask(given: SubmitSettings) -> Prediction:
            from submitter.api.client import Calls

            async with Calls(given.api_key, given.base_url) as calls:
                return await calls.result(task_id)

        prediction = run(settings, ask)
        if as_json:
            json_line(fields(prediction))
        else:
            show(prediction)
        if prediction.terminal and not prediction.succeeded:
            raise typer.Exit(1)

    return result
