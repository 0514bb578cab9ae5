"""`wavehook demo`: the whole loop on this machine, over real HTTP, with things going wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.demo_database import KEPT, Place, placed

if TYPE_CHECKING:
    from receiver.build import Parts
    from receiver.cli.demo_handler import Tally
    from receiver.cli.demo_ledger import Ledger, Summary
    from receiver.cli.demo_view import View
    from receiver.config import Settings
    from submitter.simulator import Faults, Simulator

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
TASKS = 10
SPEED = 20.0
FAULTS = "duplicate=0.3,reorder=0.3,early-webhook=0.1"
SEED = 39

LEASE = 2.0
"""Seconds after which the dispatch of a killed worker is taken up."""

DEADLINE = 25.0
"""Seconds for all of it."""


def demo(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="Where to keep the inbox; implies --keep."),
    ] = None,
    *,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help=f"Keep the inbox, in {KEPT} or its schema unless PATH says where."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
    ] = False,
) -> None:
    """See the whole loop in a few seconds.

    No account, no cost. It starts a simulated WaveSpeedAI API and a receiver on free ports of this
    machine, submits ten Kling image-to-video tasks with a context each, and handles their webhooks.
    On purpose, webhooks come twice, out of order, and before the submit's answer; one is forged; a
    worker is killed over one task, and another task's handler fails at first.

    The inbox is a file; where WAVEHOOK_DATABASE is a PostgreSQL, a schema of its own there.

    Example: wavehook demo --keep

    Exit codes: 0 all ten were handled exactly once, 1 they were not, 2 usage or settings.
    """
    from receiver.telemetry.log import configure

    configure(level="error")
    asyncio.run(_play(path, keep=keep, as_json=as_json))


async def _play(path: str | None, *, keep: bool, as_json: bool) -> None:
    async with placed(path, keep=keep) as place:
        with _view(as_json=as_json) as view:
            summary = await run(view, place)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        from receiver.cli.demo_view import closing

        typer.echo(f"\n{closing(summary)}")
    if not summary.exactly_once:
        raise typer.Exit(1)


async def run(view: View, place: Place) -> Summary:
    """Run the demo.

    Args:
        view: shows it.
        place: of the inbox, which is made here.
    """
    from cryptography.fernet import Fernet

    from receiver.cli.demo_handler import TALLY, Tally
    from receiver.cli.demo_ledger import Ledger
    from submitter.simulator import Faults, Simulator
    from submitter.simulator.serving import serving

    started = time.monotonic()
    ledger, tally = Ledger(TASKS), Tally()
    TALLY.set(tally)
    key = Fernet.generate_key().decode()
    faults = Faults.parse(FAULTS, SEED)
    async with Simulator(speed=SPEED, faults=faults) as sim:
        parts = _receiver(sim, place.settings, key, ledger)
        async with (
            serving(parts.app, lifespan=True) as url,
            _shown(view, ledger, sim),
        ):
            ledger.notes.append(f"simulated API on {sim.url}, receiver on {url}")
            try:
                async with asyncio.timeout(DEADLINE):
                    await _submit(sim, url, key, parts, ledger)
                    await _forge(sim, url)
                    await ledger.stored.wait()
                    await _kill_a_worker(parts, ledger)
                    await parts.dispatcher.start()
                    while not (ledger.complete and _sent(sim, faults)):  # noqa: ASYNC110 - two sides
                        await asyncio.sleep(0.02)
            except TimeoutError:
                ledger.notes.append(f"not complete after {DEADLINE:g} s")
            finally:
                await parts.dispatcher.stop(1.0)
            once = await _exactly_once(parts, ledger, tally)
    return _summary(ledger, exactly_once=once, started=started, place=place)


def _receiver(sim: Simulator, place: Settings, key: str, ledger: Ledger) -> Parts:
    """The receiver as `serve` builds it; its dispatcher is started by hand."""
    from receiver.build import build
    from receiver.config.secret import Secret

    settings = replace(
        place,
        seal_keys=(Secret(key),),
        modules=("receiver.cli.demo_handler",),
        dispatch="external",
        lease=LEASE,
    )
    return build(settings, secrets=[sim.secret], hooks=[ledger.hook])


async def _submit(sim: Simulator, url: str, key: str, parts: Parts, ledger: Ledger) -> None:
    import httpx

    from receiver.cli.demo_handler import STUMBLES
    from submitter.client import WaveSpeed
    from submitter.settings import SubmitSettings

    # A transport of its own: no proxy of the environment stands between two local ports.
    transport = httpx.AsyncHTTPTransport()
    settings = SubmitSettings("any-key", sim.url, public_url=url, seal_keys=(key,))
    async with WaveSpeed(ledger=parts.ledger, settings=settings, transport=transport) as wave:
        for number in range(1, TASKS + 1):
            submission = await wave.submit(
                MODEL,
                prompt=f"A lighthouse at dusk, take {number}",
                image=sim.first_frame,
                context={"task": number, STUMBLES: number == TASKS},
            )
            ledger.submitted(submission.task_id or "")


async def _forge(sim: Simulator, url: str) -> None:
    """Post what a stranger would: a result for a real task, signed with a guessed secret."""
    import httpx

    from submitter.simulator.sender import sign

    task, now = sim.tasks[-1], int(time.time())
    body = json.dumps(
        {"id": task.id, "status": "completed", "model": MODEL, "outputs": ["https://evil.example"]}
    ).encode()
    headers = {
        "content-type": "application/json",
        "webhook-id": task.id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign("whsec_guessed", task.id, now, body),
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{url}/webhooks/wavespeed", content=body, headers=headers)


async def _kill_a_worker(parts: Parts, ledger: Ledger) -> None:
    """Leave a lease behind as a worker under SIGKILL does: taken, and never heard of again."""
    names = {handler.name: 1 for handler in parts.handlers}
    claims = await parts.store.claim("a worker that is killed", names, LEASE, time.time())
    for claim in claims:
        ledger.lost(claim.event.subject or "")


def _sent(sim: Simulator, faults: Faults) -> bool:
    """Whether every webhook has been delivered, its duplicate too."""
    from submitter.simulator import Fault

    wanted = sum(1 + faults.hits(Fault.DUPLICATE, task.number) for task in sim.tasks)
    return sum(attempt.accepted for attempt in sim.attempts) >= wanted


async def _exactly_once(parts: Parts, ledger: Ledger, tally: Tally) -> bool:
    """Ask the handlers and the store: each task once, under a key of its own, and no other."""
    runs = sorted(tally.runs.elements())
    tasks = sorted(ledger.tasks)
    stored = [
        await parts.store.dispatches(listed.event.id)
        for listed in await parts.store.events(limit=2 * TASKS)
    ]
    done = [[dispatch.state.value for dispatch in dispatches] for dispatches in stored]
    return (
        len(tasks) == TASKS
        and [task for task, _ in runs] == tasks
        and len({key for _, key in runs}) == TASKS
        and done == [["done"]] * TASKS
        and ledger.refused == 1
    )


def _summary(ledger: Ledger, *, exactly_once: bool, started: float, place: Place) -> Summary:
    from receiver.cli.demo_ledger import Summary

    path = place.settings.database_path
    return Summary(
        submitted=len(ledger.tasks),
        verified=ledger.verified.total(),
        duplicates_dropped=ledger.duplicates,
        forgeries_refused=ledger.refused,
        retried=ledger.failed,
        handled=len(ledger.done.intersection(ledger.tasks)),
        exactly_once=exactly_once,
        seconds=round(time.monotonic() - started, 3),
        database=place.settings.database_place if place.kept else None,
        schema=place.settings.database_schema if place.kept and path is None else None,
    )


@asynccontextmanager
async def _shown(view: View, ledger: Ledger, sim: Simulator) -> AsyncIterator[None]:
    """Keep the view up to date, and true at the end."""

    def show() -> None:
        now = time.time()
        view.show(ledger, {task.id: task.status(now).value for task in sim.tasks})

    async def keep_showing() -> None:
        while True:
            show()
            await asyncio.sleep(0.08)

    showing = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        show()


def _view(*, as_json: bool) -> View:
    from rich.console import Console

    from receiver.cli.demo_view import Lines, LiveTable, Silent

    if as_json:
        return Silent()
    return LiveTable(Console()) if sys.stdout.isatty() else Lines(typer.echo)
