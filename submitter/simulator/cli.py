"""The command `wavehook simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from submitter.simulator.faults import ALL, ALL_RATE, GROUPS, Faults, FaultsError
from submitter.simulator.media import FIRST_FRAME
from submitter.simulator.tasks import ENDINGS, KEPT

if TYPE_CHECKING:
    from submitter.simulator import Simulator

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
WEBHOOK = "http%3A%2F%2F127.0.0.1%3A8080%2Fwebhooks%2Fwavespeed"

_FAULTS = (
    "What goes wrong on purpose, as name=probability with the names above. A bare name means "
    f"always, `{ALL}` means each at {ALL_RATE}; later words go over earlier ones: all=0.2,drop=0."
)


def simulate(
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free port.")] = 8790,
    speed: Annotated[
        float, typer.Option(help="How many times faster than life; a video takes a minute in life.")
    ] = 10.0,
    faults: Annotated[str, typer.Option(help=_FAULTS)] = "",
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same faults, in order of calls.")
    ] = None,
    expire: Annotated[
        float,
        typer.Option(
            help="Seconds of life after a task's end until it and its outputs are gone; 7 days."
        ),
    ] = KEPT,
    api_key: Annotated[
        str | None, typer.Option(help="The only bearer key that is accepted; without it, any.")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Signs the webhooks (whsec_…); without it, a new one.")
    ] = None,
) -> None:
    """Run a look-alike of the WaveSpeedAI API.

    On this machine, with its webhooks; no account, no cost. It checks inputs as the API does,
    serves real output files, signs its webhooks, and can do wrong whatever a sender can do wrong.
    Stop it with Ctrl-C.

    \b
    Faults of each task's webhook:
      duplicate, delay, reorder, drop, bad-signature, stale, early-webhook
    Faults of each submit:
      lost-request, lost-answer, reset
    Faults of each call:
      rate-limit, error-500, error-502, slow-answer
    Faults of what answers hold:
      missing-history, null-nsfw, object-outputs, unknown-status,
      missing-fields

    \b
    While it runs:
      GET  /simulator/bill      what would have been billed
      GET  /simulator/webhooks  what was sent, and how it was answered
      GET  /simulator/calls     how many calls came, by kind
      POST /simulator/faults    {"faults": "drop=0.2"}: other faults from now on
      POST /simulator/forward   {"seconds": 3600}: life jumps ahead

    Example: wavehook simulate --speed 60 --faults duplicate=0.2,drop=0.1

    Exit codes: 0 stopped by a signal, 1 the port cannot be had, 2 usage.
    """  # noqa: D301 - the help is laid out by the character itself
    seed = secrets.randbelow(2**32) if seed is None else seed
    for name, number in (("--speed", speed), ("--expire", expire)):
        if not 0 < number < float("inf"):
            raise typer.BadParameter("must be a number above 0", param_hint=name)
    try:
        plan = Faults.parse(faults, seed)
    except FaultsError as error:
        raise typer.BadParameter(str(error), param_hint="--faults") from None
    from submitter.simulator import Simulator

    simulator = Simulator(
        host=host,
        port=port,
        speed=speed,
        faults=plan,
        expire=expire,
        secret=secret,
        api_key=api_key,
    )
    try:
        asyncio.run(_run(simulator, _intro(simulator, plan, speed, api_key)))
    except OSError as error:
        typer.echo(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. "
            "Choose another with --port, or --port 0 for a free one.",
            err=True,
        )
        raise typer.Exit(1) from None


async def _run(simulator: Simulator, intro: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Where the loop cannot do it (Windows), Ctrl-C ends asyncio.run by itself.
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
A look-alike of the WaveSpeedAI API listens on {{url}}
  speed   {speed:g} times faster than life
  faults  {_shown(faults)}

In the terminal where the receiver and the submitter run:

  export WAVESPEED_BASE_URL={{url}}
  export WAVESPEED_API_KEY={api_key or "any-key-will-do"}
  export WAVEHOOK_WAVESPEED_SECRETS={simulator.secret}

A task whose result goes to a receiver on port 8080:

  curl -s "{{url}}/api/v3/{MODEL}?webhook={WEBHOOK}" \\
    -H "Authorization: Bearer $WAVESPEED_API_KEY" \\
    -d '{{"prompt": "a lighthouse at dusk", "image": "{{url}}{FIRST_FRAME}"}}'

A task ends badly where its prompt holds one of: {endings}
What would have been billed: curl -s {{url}}/simulator/bill
What was sent, and how it was answered: curl -s {{url}}/simulator/webhooks
How many calls came: curl -s {{url}}/simulator/calls
Other faults from now on: curl -s {{url}}/simulator/faults -d '{{"faults": "drop=0.2"}}'
An hour of life at once: curl -s {{url}}/simulator/forward -d '{{"seconds": 3600}}'

Ctrl-C stops it; it keeps nothing."""


def _shown(faults: Faults) -> str:
    """What goes wrong, a line for each group that has something."""
    if not any(faults.rates.values()):
        return "none; see wavehook simulate --help"
    lines = [f"seed {faults.seed}"]
    for group, members in GROUPS.items():
        rates = [(fault, faults.rates.get(fault, 0.0)) for fault in members]
        words = " ".join(f"{fault}={rate:g}" for fault, rate in rates if rate)
        if words:
            lines.append(f"    {group}: {words}")
    return "\n".join(lines)
