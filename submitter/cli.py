"""The commands `submit`, `result` and `simulate`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from submitter import catalogue
from submitter.errors import ApiError, BadInput, BadSettings, SubmitterError
from submitter.prediction import JSON, Prediction, Status
from submitter.printing import json_line, plain, tell_retries
from submitter.seal import Seal
from submitter.settings import SubmitSettings, from_environment
from submitter.simulator.cli import simulate

if TYPE_CHECKING:
    from submitter.client import WaveSpeed

T = TypeVar("T")


def register(app: typer.Typer, settings: Callable[[], SubmitSettings] = from_environment) -> None:
    """Add the commands to an application.

    Args:
        app: the application.
        settings: gives the settings when a command runs; raises BadSettings for exit code 2.
    """
    app.command()(_submit_command(settings))
    app.command()(_result_command(settings))
    app.command("simulate")(simulate)


def _submit_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    def submit(
        model: Annotated[
            str, typer.Argument(help="The model's id.", metavar="MODEL", show_default=False)
        ],
        *,
        pairs: Annotated[
            list[str] | None,
            typer.Option(
                "--input",
                "-i",
                metavar="KEY=VALUE",
                help="One field of the input; may be given many times. A value is read as JSON "
                "where the field is no text: duration=5.",
            ),
        ] = None,
        file: Annotated[
            str | None,
            typer.Option(
                "--input-json",
                metavar="FILE",
                help="A file with the input as a JSON object; - reads standard input. "
                "--input adds to it.",
            ),
        ] = None,
        context: Annotated[
            str | None,
            typer.Option(
                metavar="JSON",
                help="Any small JSON; every handler gets it with the result. Travels sealed in "
                "the webhook's URL, and needs WAVEHOOK_PUBLIC_URL and the receiver's seal key.",
            ),
        ] = None,
        webhook: Annotated[
            bool,
            typer.Option(help="Ask for a webhook to WAVEHOOK_PUBLIC_URL, where that is set."),
        ] = True,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object: task_id, model, status.")
        ] = False,
    ) -> None:
        """Submit one task and print its id. It is sent once, and billed.

        The input is checked first; whatever is wrong is shown, and nothing is sent.

        Example: wavehook submit kwaivgi/kling-v2.1-i2v-standard -i prompt="waves at dusk"
        -i image=https://example.com/first.png -i duration=5 --context '{"user": 7}'
        """
        input = _input(model, pairs or [], file)
        about = None if context is None else _json(context, "--context")

        async def run(wave: WaveSpeed) -> None:
            task = await wave.submit(model, input, context=about, webhook=webhook)
            if as_json:
                status = task.prediction.status
                json_line({"task_id": task.task_id, "model": model, "status": status})
            else:
                typer.echo(plain(task.task_id))

        _run(settings, run)

    return submit


def _result_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    def result(
        task_id: Annotated[
            str, typer.Argument(help="The task's id.", metavar="TASK_ID", show_default=False)
        ],
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object: the task with all fields.")
        ] = False,
    ) -> None:
        """Ask the API once how a task stands. Exit code 1 where the task ended badly.

        Example: wavehook result 7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f --json
        """

        async def run(wave: WaveSpeed) -> Prediction:
            return await wave.result(task_id)

        prediction = _run(settings, run)
        if as_json:
            json_line(_fields(prediction))
        else:
            _show(prediction)
        if prediction.terminal and prediction.status != Status.COMPLETED:
            raise typer.Exit(1)

    return result


def _run(
    settings: Callable[[], SubmitSettings],
    work: Callable[[WaveSpeed], Coroutine[Any, Any, T]],
) -> T:
    from submitter.client import WaveSpeed

    tell_retries()

    async def session(wave: WaveSpeed) -> T:
        async with wave:
            return await work(wave)

    try:
        given = settings()
        client = WaveSpeed(
            given.api_key,
            given.base_url,
            webhook_url=given.public_url or None,
            seal=Seal(given.seal_keys) if given.seal_keys else None,
        )
        return asyncio.run(session(client))
    except SubmitterError as error:
        typer.echo(f"Error: {error}", err=True)
        # The person at the terminal is the one who sent what the API may repeat here.
        if isinstance(error, ApiError) and error.message:
            typer.echo(f"The API says: {error.message}", err=True)
        raise typer.Exit(2 if isinstance(error, BadInput | BadSettings) else 1) from None


def _input(model: str, pairs: list[str], file: str | None) -> dict[str, JSON]:
    input: dict[str, JSON] = {}
    if file is not None:
        whole = _json(_read(file), "--input-json")
        if not isinstance(whole, dict):
            raise typer.BadParameter("must hold a JSON object", param_hint="--input-json")
        input = whole
    fields = (catalogue.builtin(model) or {}).get("properties", {})
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter("must look like KEY=VALUE", param_hint="--input")
        if name in input:
            raise typer.BadParameter(f"{plain(name)} is given twice", param_hint="--input")
        input[name] = _value(text, fields.get(name, {}))
    return input


def _value(text: str, schema: Mapping[str, Any]) -> JSON:
    if schema.get("type") == "string":
        return text
    try:
        return cast("JSON", json.loads(text))
    except (ValueError, RecursionError):
        return text


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeError:
        reason = "it is not UTF-8"
    raise typer.BadParameter(f"cannot be read: {reason}", param_hint="--input-json")


def _json(text: str, option: str) -> JSON:
    try:
        return cast("JSON", json.loads(text))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        reason = "its numbers or its depth are beyond reading"
    raise typer.BadParameter(f"is no JSON: {reason}", param_hint=option)


def _fields(prediction: Prediction) -> dict[str, JSON]:
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


def _show(prediction: Prediction) -> None:
    typer.echo(f"{plain(prediction.id)} {plain(prediction.status)}")
    for url in prediction.outputs:
        typer.echo(plain(url))
    if prediction.error:
        code = f" (code {prediction.code})" if prediction.code else ""
        typer.echo(f"{plain(prediction.error)}{code}")
