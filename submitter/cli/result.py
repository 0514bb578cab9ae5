"""The commands `wavehook result` and `wavehook wait`, and how predictions are printed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from submitter.cli.options import Timeout
from submitter.cli.run import json_line, plain, print_error, run
from submitter.errors import SubmitterError
from submitter.prediction import JSON, Prediction
from submitter.settings import SubmitSettings

if TYPE_CHECKING:
    from submitter.client import WaveSpeed


def fields(prediction: Prediction) -> dict[str, JSON]:
    """The JSON fields of a prediction."""
    created = prediction.created_at
    return {
        "id": prediction.id,
        "status": prediction.status,
        "model": prediction.model,
        "outputs": list(prediction.outputs),
        "error": prediction.error,
        "code": prediction.code,
        "has_nsfw_contents": list(prediction.has_nsfw_contents),
        "created_at": created.isoformat() if created else None,
        "inference_ms": prediction.inference_ms,
    }


def show(prediction: Prediction, *, name: str | None = None) -> None:
    """Print a prediction for a person: its status, and one output a line.

    Args:
        prediction: the task.
        name: name of the task that was given on the command line; by default its id.
    """
    typer.echo(f"{plain(name or prediction.id)} {plain(prediction.status)}")
    for url in prediction.outputs:
        typer.echo(plain(url))
    if prediction.error:
        code = f" (code {prediction.code})" if prediction.code else ""
        typer.echo(f"{plain(prediction.error)}{code}")


def result_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: reads the settings when the command runs; BadSettings ends it with exit code 2.
    """

    def result(
        task_id: Annotated[
            str, typer.Argument(help="The task's id.", metavar="TASK_ID", show_default=False)
        ],
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object with all fields of the task.")
        ] = False,
    ) -> None:
        """Print the current state of a task; asks the API once.

        Example: wavehook result 7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f --json

        Exit codes: 0 asked, 1 the task failed or the API did not answer, 2 usage or settings.
        """

        async def ask(given: SubmitSettings) -> Prediction:
            from submitter.api.client import ApiClient

            async with ApiClient(given.api_key, given.base_url) as calls:
                return await calls.result(task_id)

        prediction = run(settings, ask)
        if as_json:
            json_line(fields(prediction))
        else:
            show(prediction)
        if prediction.terminal and not prediction.succeeded:
            raise typer.Exit(1)

    return result


def wait_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: reads the settings when the command runs; BadSettings ends it with exit code 2.
    """

    def wait(
        ids: Annotated[
            list[str],
            typer.Argument(
                help="Task ids, or keys of submissions.", metavar="ID...", show_default=False
            ),
        ],
        *,
        timeout: Timeout = None,
        as_json: Annotated[
            bool,
            typer.Option(
                "--json",
                help="Print one JSON object a line, as tasks end: `given` (the ID) and the fields "
                "of `wavehook result`.",
            ),
        ] = False,
    ) -> None:
        """Wait until tasks end, and print each result as it arrives.

        Results arrive from a receiver on the same database, or from the one at WAVEHOOK_PUBLIC_URL
        if WAVEHOOK_ADMIN_TOKEN is set; the API is polled rarely. The tasks go on if you stop
        waiting.

        Example: wavehook wait 7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f --timeout 10m

        Exit codes: 0 all completed, 1 one failed, or not in time, 2 usage or settings,
        130 Ctrl-C, 143 SIGTERM.
        """

        async def one(wave: WaveSpeed, id: str) -> bool:
            try:
                prediction = await wave.wait(id, timeout=timeout)
            except SubmitterError as error:
                print_error(error, about=plain(id))
                return False
            if as_json:
                json_line({"given": id, **fields(prediction)})
            else:
                show(prediction, name=id)
            return prediction.succeeded

        async def work(given: SubmitSettings) -> bool:
            from submitter.client import WaveSpeed

            async with WaveSpeed(settings=given) as wave:
                waits = [one(wave, id) for id in dict.fromkeys(ids)]
                return all(await asyncio.gather(*waits))

        if not run(
            settings, work, interrupted="Interrupted. The tasks go on; wait for them again."
        ):
            raise typer.Exit(1)

    return wait
