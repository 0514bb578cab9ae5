"""`wavehook demo`: the whole loop on this machine, over real HTTP, with things going wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import settings
from receiver.demo.story import KEPT, OWN, Ledger, Place, placed

if TYPE_CHECKING:
    from receiver.build import ReceiverParts
    from receiver.config import Settings
    from receiver.demo.story import Summary
    from receiver.demo.view import View
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

PATIENCE = 120.0
"""Seconds for all of it, with handlers of the user's."""


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
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", help="Settings whose handlers get the demo's events too."
        ),
    ] = None,
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

    With --config, the handlers of that file, and of the modules that it names, are run beside the
    demo's own: they write, post and send as they always do. The videos come from 127.0.0.1, where
    a handler fetches them only if its `allow` names it.

    Example: wavehook demo --keep

    Exit codes: 0 all ten were handled exactly once, 1 they were not, 2 usage or settings.
    """
    from receiver.telemetry.log import configure

    guests = settings(config=config) if config else None
    configure(level="error")
    asyncio.run(_play(path, keep=keep, guests=guests, as_json=as_json))


async def _play(path: str | None, *, keep: bool, guests: Settings | None, as_json: bool) -> None:
    async with placed(path, keep=keep) as place:
        with _view(as_json=as_json) as view:
            summary = await run(view, place, guests)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        from receiver.demo.view import closing

        typer.echo(f"\n{closing(summary)}")
    if not summary.exactly_once:
        raise typer.Exit(1)


async def run(view: View, place: Place, guests: Settings | None = None) -> Summary:
    """Run the demo.

    Args:
        view: shows it.
        place: of the inbox, which is made here.
        guests: settings whose handlers are run too.

    Raises:
        SettingsError: one of these cannot be made.
    """
    from cryptography.fernet import Fernet

    from receiver.demo.story import TALLY, Tally, all_dispatches, summed_up
    from submitter.simulator import Faults, Simulator
    from submitter.simulator.server import serving

    started = time.monotonic()
    tally = Tally()
    TALLY.set(tally)
    ledger = Ledger(TASKS)
    limit = PATIENCE if guests else DEADLINE
    key = Fernet.generate_key().decode()
    faults = Faults.parse(FAULTS, SEED)
    async with Simulator(speed=SPEED, faults=faults) as sim:
        parts = _receiver(sim, _with_guests(place.settings, guests), key, ledger)
        ledger.guests = {each.name: Counter() for each in parts.handlers if each.name != OWN}
        async with (
            serving(parts.app, lifespan=True) as url,
            _shown(view, ledger, sim),
        ):
            ledger.notes.append(f"simulated API on {sim.url}, receiver on {url}")
            try:
                async with asyncio.timeout(limit):
                    await _submit(sim, url, key, parts, ledger)
                    await _forge(sim, url)
                    await ledger.stored.wait()
                    await _kill_a_worker(parts, ledger)
                    await parts.dispatcher.start()
                    await _until_done(parts, ledger, sim, faults)
            except TimeoutError:
                ledger.notes.append(f"not complete after {limit:g} s")
            finally:
                await parts.dispatcher.stop(1.0)
            stored = await all_dispatches(parts.store)
    return summed_up(ledger, tally, stored, started=started, place=place)


def _with_guests(settings: Settings, guests: Settings | None) -> Settings:
    """The demo's own handler, and those of the user."""
    own = ("receiver.demo.story",)
    if guests is None:
        return replace(settings, modules=own)
    return replace(settings, modules=(*own, *guests.modules), handlers=guests.handlers)


def _receiver(sim: Simulator, place: Settings, key: str, ledger: Ledger) -> ReceiverParts:
    """The receiver as `serve` builds it; its dispatcher is started by hand."""
    from receiver.build import build
    from receiver.config import Secret

    settings = replace(
        place,
        seal_keys=(Secret(key),),
        dispatch="external",
        lease=LEASE,
    )
    return build(settings, secrets=[sim.secret], hooks=[ledger.hook])


async def _submit(sim: Simulator, url: str, key: str, parts: ReceiverParts, ledger: Ledger) -> None:
    import httpx

    from receiver.demo.story import STUMBLES
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

    from submitter.simulator.webhook_sender import sign

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


async def _kill_a_worker(parts: ReceiverParts, ledger: Ledger) -> None:
    """Leave a lease behind as a worker under SIGKILL does: taken, and never heard of again."""
    # Of the demo's own handler: a guest's work is its user's, and done once.
    claims = await parts.store.claim("a worker that is killed", {OWN: 1}, LEASE, time.time())
    for claim in claims:
        ledger.lost(claim.event.subject or "")


async def _until_done(parts: ReceiverParts, ledger: Ledger, sim: Simulator, faults: Faults) -> None:
    from receiver.demo.story import settled

    # Three sides, of which none tells the others.
    while not (ledger.complete and _sent(sim, faults) and await settled(parts.store)):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def _sent(sim: Simulator, faults: Faults) -> bool:
    """Whether every webhook has been delivered, its duplicate too."""
    from submitter.simulator import FaultKind

    wanted = sum(1 + faults.hits(FaultKind.DUPLICATE, task.number) for task in sim.tasks)
    return sum(attempt.accepted for attempt in sim.attempts) >= wanted


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

    from receiver.demo.view import Lines, LiveTable, Silent

    if as_json:
        return Silent()
    return LiveTable(Console()) if sys.stdout.isatty() else Lines(typer.echo)
