"""The command `wavehook batch`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submitter.batch.rows import RowState
from submitter.cli.options import Context, Webhook, parse_dollars, parse_json
from submitter.cli.progress import shown
from submitter.cli.run import json_line, plain, print_error, run, suggest_model
from submitter.errors import NotFound, OverBudget
from submitter.prediction import JSON
from submitter.settings import SubmitSettings

if TYPE_CHECKING:
    from submitter.batch.batch import Batch
    from submitter.batch.plan import BatchRequest


def batch_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: reads the settings when the command runs; BadSettings ends it with exit code 2.
    """

    def batch(
        inputs: Annotated[
            Path,
            typer.Argument(
                help="A file with a row for each task: JSON Lines (.jsonl, .ndjson) of inputs, or "
                'of {"input": {…}, "context": …}; or CSV (.csv), whose header names the fields.',
                metavar="INPUTS",
                show_default=False,
            ),
        ],
        *,
        model: Annotated[
            str, typer.Option(help="The model's id.", metavar="MODEL", show_default=False)
        ],
        out: Annotated[
            Path,
            typer.Option(
                help="The results file: JSON Lines, in the order of the inputs.",
                metavar="FILE",
                show_default=False,
            ),
        ],
        name: Annotated[
            str | None,
            typer.Option(
                help="Name of the batch; a row is billed once under one name. Another name submits "
                "all rows again. [default: the path of --out]",
                metavar="TEXT",
            ),
        ] = None,
        max_cost: Annotated[
            float | None,
            typer.Option(
                metavar="USD",
                parser=parse_dollars,
                help="Submit nothing if the rows that are not submitted yet would cost more than "
                "this together, by the API's prices.",
            ),
        ] = None,
        retry_failed: Annotated[
            bool,
            typer.Option(
                "--retry-failed",
                help="Submit the rows again, and pay again, that failed according to FILE.",
            ),
        ] = False,
        context: Context = None,
        webhook: Webhook = True,
        as_json: Annotated[
            bool,
            typer.Option("--json", help="Print one JSON object at the end: rows by their end."),
        ] = False,
    ) -> None:
        """Submit a task for each row, wait for all, write the results.

        All rows are checked first; a faulty row does not stop the others. After Ctrl-C, SIGTERM or
        a kill, the same command continues: rows that were submitted are never billed again. Paths
        of local files are relative to the working directory. WAVEHOOK_RATE and WAVEHOOK_IN_FLIGHT
        limit the submits.

        Example: wavehook batch shots.csv --model kwaivgi/kling-v2.1-i2v-standard
        --out results.jsonl --max-cost 50

        Exit codes: 0 all completed, 1 a row failed, was faulty or has not ended, 2 usage or
        settings, or it would cost too much, 130 Ctrl-C, 143 SIGTERM.
        """
        from submitter.batch.plan import BatchRequest

        wanted = BatchRequest(
            inputs=inputs,
            model=model,
            out=out,
            name=name,
            max_cost=max_cost,
            context=None if context is None else parse_json(context, "--context"),
            webhook=webhook,
            retry=retry_failed,
        )
        began = time.monotonic()

        async def work(given: SubmitSettings) -> bool:
            done = await _work(given, wanted)
            if as_json:
                json_line(_summary(done, wanted, time.monotonic() - began))
            else:
                _show(done, wanted)
            return done.counts[RowState.COMPLETED] == len(done.rows)

        again = "Interrupted. The same command continues from here, and bills nothing twice."
        if not run(settings, work, interrupted=again, quiet=True):
            raise typer.Exit(1)

    return batch


async def _work(given: SubmitSettings, wanted: BatchRequest) -> Batch:
    from submitter.batch.plan import plan, print_rows
    from submitter.batch.results import write_results
    from submitter.client import WaveSpeed

    async with WaveSpeed(settings=given) as wave:
        try:
            batch = await plan(wave, given, wanted, _say)
        except OverBudget as error:
            print_error(error)
            raise typer.Exit(2) from None
        try:
            async with shown(batch):
                await batch.run()
        finally:
            try:
                await write_results(wanted.out, batch.rows, wanted.model, wave.find)
            except OSError as error:
                _say(f"Error: {wanted.out} cannot be written: {error.strerror}")
                _say("The same command tries again, and bills nothing twice.")
                raise typer.Exit(1) from None
        print_rows(batch, RowState.REJECTED, "were refused", _say)
        if batch.stopped is not None:
            print_error(batch.stopped, about="nothing more was submitted")
        if isinstance(batch.stopped, NotFound):
            await suggest_model(wave, wanted.model)
    return batch


def _say(text: str) -> None:
    typer.echo(plain(text), err=True)


def _summary(done: Batch, wanted: BatchRequest, seconds: float) -> dict[str, JSON]:
    counts = done.counts
    ends: dict[str, JSON] = {state.value: counts[state] for state in _ENDS}
    return {
        "rows": len(done.rows),
        **ends,
        "unfinished": _unfinished(done),
        "cost": round(done.cost, 6),
        "seconds": round(seconds, 3),
        "results": str(wanted.out),
    }


def _show(done: Batch, wanted: BatchRequest) -> None:
    counts = done.counts
    words = [f"{counts[state]} {state.value}" for state in _ENDS if counts[state]]
    if left := _unfinished(done):
        words.append(f"{left} not ended")
    typer.echo(f"{len(done.rows)} rows: {', '.join(words)}; {done.cost:.2f} USD")
    typer.echo(f"The results are in {plain(str(wanted.out))}")
    if counts[RowState.FAILED]:
        typer.echo("--retry-failed submits the failed rows again, and pays again.")


def _unfinished(done: Batch) -> int:
    return done.counts[RowState.WAITING] + done.counts[RowState.RUNNING]


_ENDS = (RowState.COMPLETED, RowState.FAILED, RowState.REJECTED, RowState.INVALID)
