"""`wavehook dead`: dispatches that were given up, and their second chance."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from receiver.cli.opening import PURGED, stored, with_store
from receiver.cli.options import AsJson, Config, Database, Pooler, Schema, settings
from receiver.cli.printing import dispatch_fields, table
from receiver.errors import WavehookError
from receiver.event import Dispatch, DispatchState
from receiver.stores.base import Store
from submitter.prediction import JSON
from submitter.printing import json_line, moment

PAGE = 500

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What was given up: list it, or let it be tried again.",
)


@app.command("list")
def list_dead(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="How many at most.")] = 50,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """List dead dispatches, latest first.

    Example: wavehook dead list --json | jq -r '[.event_id, .handler, .error] | @tsv'

    Exit codes: 0 done, 1 there is no database, 2 usage or settings.
    """

    async def work(store: Store) -> list[Dispatch]:
        return await store.dead(limit=limit)

    rows = with_store(
        settings(
            database=database,
            database_schema=database_schema,
            database_pooler=database_pooler,
            config=config,
        ),
        work,
    )
    if as_json:
        for row in rows:
            json_line(dispatch_fields(row))
    elif not rows:
        typer.echo("Nothing is dead.")
    else:
        cells = [
            (moment(row.settled_at) or "-", row.handler, str(row.attempt), row.event_id)
            for row in rows
        ]
        heads = ("DIED", "HANDLER", "ATTEMPTS", "EVENT", "ERROR")
        errors = [row.error or "-" for row in rows]
        table(heads, [(*cell, error) for cell, error in zip(cells, errors, strict=True)])


@app.command("retry")
def retry_dead(
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="Of this event.", show_default=False)
    ] = None,
    handler: Annotated[
        str | None,
        typer.Argument(
            metavar="HANDLER",
            help="Of this handler; all of the event without it.",
            show_default=False,
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """Make dead dispatches due at once, with all tries anew.

    The running `serve` or `worker` does them, or the next `drain`.

    Example: wavehook dead retry wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:failed team

    Exit codes: 0 done, 1 nothing of that is dead, 2 usage or settings.
    """
    if everything == (event_id is not None):
        raise typer.BadParameter("expected either an event's id or --all", param_hint="EVENT_ID")

    async def work(store: Store) -> tuple[list[Dispatch], int]:
        if event_id is None:
            return await _retry_all(store)
        return await _retry_one(store, event_id, handler), 0

    done, left = with_store(
        settings(
            database=database,
            database_schema=database_schema,
            database_pooler=database_pooler,
            config=config,
        ),
        work,
    )
    if as_json:
        for dispatch in done:
            fields: dict[str, JSON] = {"event_id": dispatch.event_id, "handler": dispatch.handler}
            json_line(fields)
    else:
        typer.echo(f"{len(done)} dispatch{'es' * (len(done) != 1)} due again")
    if left:
        typer.echo(f"{left} left dead: the bodies of their events were purged", err=True)


async def _retry_one(store: Store, event_id: str, handler: str | None) -> list[Dispatch]:
    event = await stored(store, event_id)
    dead = [
        dispatch
        for dispatch in await store.dispatches(event_id)
        if handler in (None, dispatch.handler) and dispatch.state is DispatchState.DEAD
    ]
    if dead and not event.body:
        raise WavehookError(PURGED)
    done = [dispatch for dispatch in dead if await _retry(store, dispatch)]
    if not done:
        raise WavehookError("nothing of that is dead; `wavehook dead list` shows what is")
    return done


async def _retry_all(store: Store) -> tuple[list[Dispatch], int]:
    """Those that are due again, and the number of those that have nothing left to hand out."""
    seen: set[str] = set()
    done: list[Dispatch] = []
    left = 0
    while True:
        # What has died again meanwhile is left for another time.
        new = [d for d in await store.dead(limit=PAGE + left) if d.key not in seen]
        if not new:
            return done, left
        for dispatch in new:
            seen.add(dispatch.key)
            event = await store.event(dispatch.event_id)
            if event is None or not event.body:
                left += 1
            elif await _retry(store, dispatch):
                done.append(dispatch)


async def _retry(store: Store, dispatch: Dispatch) -> bool:
    return await store.retry(dispatch.event_id, dispatch.handler, time.time())
