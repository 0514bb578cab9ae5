"""The command `wavehook simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from submitter.simulator.faults import ALL, DEFAULT_RATE_OF_ALL, GROUPS, Faults, FaultsError
from submitter.simulator.media import FIRST_FRAME_PATH
from submitter.simulator.tasks import API_RETENTION_S, ENDINGS

if TYPE_CHECKING:
    from submitter.simulator import Simulator

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
WEBHOOK = "http%3A%2F%2F127.0.0.1%3A8080%2Fwebhooks%2Fwavespeed"

_FAULTS_HELP = (
    "Faults to inject, as name=probability, separated by commas; the names are above. A name alone "
    f"means always. {ALL} means every fault, each with probability {DEFAULT_RATE_OF_ALL} unless "
    "you give another. Later entries override earlier ones: all=0.2,drop=0."
)


def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 8790,
    speed: Annotated[
        float,
        typer.Option(
            help="How many times faster than real time tasks run; at 1, a video takes a minute."
        ),
    ] = 10.0,
    faults: Annotated[str, typer.Option(help=_FAULTS_HELP)] = "",
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the faults: the same seed gives the same faults again."),
    ] = None,
    expire: Annotated[
        float,
        typer.Option(
            help="Simulated seconds for which a finished task and its outputs are kept; "
            "by default 7 days."
        ),
    ] = API_RETENTION_S,
    api_key: Annotated[
        str | None, typer.Option(help="The only API key to accept; by default, any is accepted.")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Secret that signs the webhooks (whsec_…); by default, a new one."),
    ] = None,
) -> None:
    """Run a simulated WaveSpeedAI API on this machine.

    It needs no account and costs nothing. It validates inputs as the API does, serves real video
    files, sends signed webhooks, and injects faults if you ask for them. Stop it with Ctrl-C.

    \b
    Faults of each task's webhook:
      duplicate, delay, reorder, drop, bad-signature, stale, early-webhook
    Faults of each submit:
      lost-request, lost-answer, reset
    Faults of each call:
      rate-limit, error-500, error-502, slow-answer
    Faults of each response's content:
      missing-history, null-nsfw, object-outputs, unknown-status,
      missing-fields

    \b
    While it runs:
      GET  /simulator/bill      submitted tasks, and what they would have cost
      GET  /simulator/webhooks  delivery attempts, and their responses
      GET  /simulator/calls     number of API calls by kind
      POST /simulator/faults    {"faults": "drop=0.2"}: replace the faults
      POST /simulator/forward   {"seconds": 3600}: move simulated time forward

    Example: wavehook simulate --speed 60 --faults duplicate=0.2,drop=0.1

    Exit codes: 0 stopped by a signal, 1 the port cannot be used, 2 wrong usage.
    """  # noqa: D301 - `\\b` keeps the layout of the help
    seed = secrets.randbelow(2**32) if seed is None else seed
    for name, number in (("--speed", speed), ("--expire", expire)):
        if not 0 < number < float("inf"):
            raise typer.BadParameter("must be a number above 0", param_hint=name)
    try:
        parsed = Faults.parse(faults, seed)
    except FaultsError as error:
        raise typer.BadParameter(str(error), param_hint="--faults") from None
    from submitter.simulator import Simulator

    simulator = Simulator(
        host=host,
        port=port,
        speed=speed,
        faults=parsed,
        expire=expire,
        secret=secret,
        api_key=api_key,
    )
    try:
        asyncio.run(_run(simulator, _intro(simulator, parsed, speed, api_key)))
    except OSError as error:
        typer.echo(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. "
            "Choose another port with --port, or use --port 0 for a free one.",
            err=True,
        )
        raise typer.Exit(1) from None


async def _run(simulator: Simulator, intro: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # On Windows the loop has no signal handlers; there, Ctrl-C ends asyncio.run itself.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with simulator:
        typer.echo(intro.replace("{url}", simulator.url))
        await stop.wait()
    count, cost = len(simulator.tasks), sum(task.cost for task in simulator.tasks)
    typer.echo(f"Stopped after {count} submits, which would have cost {cost:.2f} USD.")


def _intro(simulator: Simulator, faults: Faults, speed: float, api_key: str | None) -> str:
    endings = " ".join(ENDINGS)
    return f"""\
Simulated WaveSpeedAI API on {{url}}
  speed   {speed:g} times faster than real time
  faults  {_listed(faults)}

Set these where the receiver and the submitter run:

  export WAVESPEED_BASE_URL={{url}}
  export WAVESPEED_API_KEY={api_key or "any-key-will-do"}
  export WAVEHOOK_WAVESPEED_SECRETS={simulator.secret}

Submit a task whose webhook goes to a receiver on port 8080:

  curl -s "{{url}}/api/v3/{MODEL}?webhook={WEBHOOK}" \\
    -H "Authorization: Bearer $WAVESPEED_API_KEY" \\
    -d '{{"prompt": "a lighthouse at dusk", "image": "{{url}}{FIRST_FRAME_PATH}"}}'

To make a task fail, put one of these words into its prompt: {endings}

  curl -s {{url}}/simulator/bill      submitted tasks, and what they would have cost
  curl -s {{url}}/simulator/webhooks  delivery attempts, and their responses
  curl -s {{url}}/simulator/calls     number of API calls by kind

Replace the faults, or move simulated time forward by an hour:

  curl -s {{url}}/simulator/faults -d '{{"faults": "drop=0.2"}}'
  curl -s {{url}}/simulator/forward -d '{{"seconds": 3600}}'

Ctrl-C stops it; nothing is kept."""


def _listed(faults: Faults) -> str:
    """Faults in force, one line for each group."""
    if not any(faults.rates.values()):
        return "none; see wavehook simulate --help"
    lines = [f"seed {faults.seed}"]
    for group, members in GROUPS.items():
        rates = [(fault, faults.rates.get(fault, 0.0)) for fault in members]
        entries = " ".join(f"{fault}={rate:g}" for fault, rate in rates if rate)
        if entries:
            lines.append(f"    {group}: {entries}")
    return "\n".join(lines)
