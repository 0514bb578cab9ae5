"""The command `wavehook submit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from submitter.batch.rows import properties, read_field
from submitter.cli.options import Context, Timeout, Webhook, parse_dollars, parse_json
from submitter.cli.result import fields, show
from submitter.cli.run import json_line, plain, print_error, run, suggest_model
from submitter.errors import NotFound, SubmissionUnknown
from submitter.prediction import JSON
from submitter.settings import SubmitSettings

if TYPE_CHECKING:
    from submitter.client import Submission, WaveSpeed


def submit_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: reads the settings when the command runs; BadSettings ends it with exit code 2.
    """

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
                metavar="FIELD=VALUE",
                help="One field of the input; may be given many times. The value is parsed as JSON "
                "unless the field is a text: duration=5. If the field takes a file, a path is "
                "uploaded: image=first.png.",
            ),
        ] = None,
        file: Annotated[
            str | None,
            typer.Option(
                "--input-json",
                metavar="FILE",
                help="A file with the input as a JSON object; - reads standard input. --input adds "
                "fields.",
            ),
        ] = None,
        wait: Annotated[
            bool, typer.Option("--wait", help="Wait until the task ends, and print its outputs.")
        ] = False,
        timeout: Timeout = None,
        key: Annotated[
            str | None,
            typer.Option(
                metavar="TEXT",
                help="Idempotency key: the same command with the same key does not submit again. "
                "[default: a random one]",
            ),
        ] = None,
        max_cost: Annotated[
            float | None,
            typer.Option(
                metavar="USD",
                parser=parse_dollars,
                help="Submit nothing if it would cost more than this, by the API's price.",
            ),
        ] = None,
        context: Context = None,
        webhook: Webhook = True,
        as_json: Annotated[
            bool,
            typer.Option(
                "--json",
                help="Print one JSON object: key, task_id, model, status; with --wait the fields "
                "of `wavehook result` too.",
            ),
        ] = False,
    ) -> None:
        """Submit one task and print its id.

        The task is billed. It is sent once and never again, even if the response is lost. The
        input is checked first: with any fault in it, nothing is sent.

        Example: wavehook submit kwaivgi/kling-v2.1-i2v-standard -i prompt="waves at dusk"
        -i image=first.png -i duration=5 --wait

        Exit codes: 0 done, 1 failed, or with --wait: the task failed or not in time, 2 usage or
        settings, 130 Ctrl-C, 143 SIGTERM.
        """
        if timeout is not None and not wait:
            raise typer.BadParameter("needs --wait", param_hint="--timeout")
        about = None if context is None else parse_json(context, "--context")
        whole = _whole(file)
        given_pairs = _split(pairs or [], whole)
        name = uuid4().hex if key is None else key

        async def work(given: SubmitSettings) -> bool:
            from submitter.client import WaveSpeed

            async with WaveSpeed(settings=given) as wave:
                try:
                    return await submitted(wave)
                except NotFound as error:
                    print_error(error)
                    await suggest_model(wave, model)
                    return False

        async def submitted(wave: WaveSpeed) -> bool:
            input = {**whole, **await _read_fields(wave, model, given_pairs)}
            if not wait:
                task = await wave.submit(
                    model, input, key=name, context=about, webhook=webhook, max_cost=max_cost
                )
                _tell(task, as_json=as_json)
                return True
            if _is_terminal():
                again = f"If this is stopped, `wavehook wait {plain(name)}` waits again."
                typer.echo(f"Submitting and waiting for the result. {again}", err=True)
            prediction = await wave.run(
                model,
                input,
                timeout=timeout,
                key=name,
                context=about,
                webhook=webhook,
                max_cost=max_cost,
            )
            if as_json:
                named: dict[str, JSON] = {"key": name, "task_id": prediction.id}
                json_line({**named, **fields(prediction), "model": model})
            else:
                show(prediction)
            return prediction.succeeded

        again = f"Interrupted. A task that was sent goes on: wavehook wait {plain(name)}"
        if not run(settings, work, interrupted=again):
            raise typer.Exit(1)

    return submit


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _tell(task: Submission, *, as_json: bool) -> None:
    entry = task.entry
    if task.task_id is None:
        # The key was used before, and the response was lost.
        reason = entry.reason or "the response has not arrived yet"
        raise SubmissionUnknown(task.model, entry.sent_at, reason, key=task.key)
    status = task.prediction.status if task.prediction else entry.status
    if as_json:
        json_line({"key": task.key, "task_id": task.task_id, "model": task.model, "status": status})
    else:
        typer.echo(plain(task.task_id))


def _whole(file: str | None) -> dict[str, JSON]:
    if file is None:
        return {}
    whole = parse_json(_read(file), "--input-json")
    if not isinstance(whole, dict):
        raise typer.BadParameter("expected a JSON object", param_hint="--input-json")
    return whole


def _split(pairs: list[str], whole: Mapping[str, JSON]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter("expected FIELD=VALUE", param_hint="--input")
        if name in whole or name in texts:
            raise typer.BadParameter(f"{plain(name)} is given twice", param_hint="--input")
        texts[name] = text
    return texts


async def _read_fields(wave: WaveSpeed, model: str, texts: Mapping[str, str]) -> dict[str, JSON]:
    schemas = properties(await wave.catalogue.model(model)) if texts else {}
    return {name: read_field(text, schemas.get(name)) for name, text in texts.items()}


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeError:
        reason = "it is not UTF-8"
    raise typer.BadParameter(f"cannot be read: {reason}", param_hint="--input-json")
