"""`wavehook events`, `show` and `redeliver`: look into the inbox, and let handlers act again.

`wavehook dead`: dispatches that were given up, and their second chance.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Annotated

import typer

from receiver.cli.database import PURGED, stored, with_store
from receiver.cli.options import AsJson, Config, Database, Modules, Pooler, Schema, settings
from receiver.cli.printing import (
    attempt_fields,
    dispatch_fields,
    event_fields,
    states,
    table,
)
from receiver.errors import WavehookError
from receiver.event import Attempt, Dispatch, DispatchState, Event
from receiver.stores.base import Listed, Store
from submitter.cli.run import json_line, plain
from submitter.prediction import JSON
from submitter.timestamps import moment

PARKED = "Parked: it is genuine, but not what its source is known to send; --body shows it."

EventId = Annotated[
    str,
    typer.Argument(metavar="EVENT_ID", help="As `wavehook events` shows it.", show_default=False),
]


def events(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="How many at most.")] = 50,
    type: Annotated[
        str | None, typer.Option(help="Only of this type, such as prediction.failed or parked.")
    ] = None,
    before: Annotated[
        int | None, typer.Option(help="Only those before this `seq`: the last of the page before.")
    ] = None,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """List stored events, newest first, and how far they are.

    Example: wavehook events --type prediction.failed --json | jq -r .id

    Exit codes: 0 done, 1 there is no database, 2 usage or settings.
    """

    async def work(store: Store) -> list[Listed]:
        return await store.events(limit=limit, before=before, type=type)

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
            dispatches: dict[str, JSON] = {k: v.value for k, v in row.dispatches.items()}
            json_line({"seq": row.seq, **event_fields(row.event), "dispatches": dispatches})
    elif not rows:
        typer.echo("No events.")
    else:
        cells = [
            (str(row.seq), moment(row.event.received_at) or "-", row.event.type, row.event.id)
            for row in rows
        ]
        handled = [states(row.dispatches) for row in rows]
        heads = ("SEQ", "RECEIVED", "TYPE", "ID", "HANDLERS")
        table(heads, [(*cell, state) for cell, state in zip(cells, handled, strict=True)])


def show(
    event_id: EventId,
    *,
    body: Annotated[
        bool, typer.Option("--body", help="Also the body and the context; both may be private.")
    ] = False,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """Show one event, its dispatches and every attempt.

    Example: wavehook show wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:completed

    Exit codes: 0 done, 1 there is no such event or no database, 2 usage or settings.
    """

    async def work(store: Store) -> tuple[Event, list[Dispatch], list[Attempt]]:
        event = await stored(store, event_id)
        return event, await store.dispatches(event_id), await store.attempts(event_id)

    event, dispatches, attempts = with_store(
        settings(
            database=database,
            database_schema=database_schema,
            database_pooler=database_pooler,
            config=config,
        ),
        work,
    )
    if as_json:
        json_line(
            {
                **event_fields(event),
                **(_private(event) if body else {}),
                "dispatches": [dispatch_fields(dispatch) for dispatch in dispatches],
                "attempts": [attempt_fields(attempt) for attempt in attempts],
            }
        )
        return
    for name, value in event_fields(event).items():
        typer.echo(f"{name:12} {plain(str(value)) if value is not None else '-'}")
    typer.echo()
    if event.parked:
        typer.echo(PARKED)
    if dispatches:
        heads = ("HANDLER", "STATE", "ATTEMPTS", "DUE", "ERROR")
        table(heads, [_dispatch_cells(dispatch) for dispatch in dispatches])
    else:
        typer.echo("No handler wanted it when it came; `wavehook redeliver` hands it to one.")
    if attempts:
        typer.echo()
        columns = ("HANDLER", "ATTEMPT", "STARTED", "SECONDS", "OUTCOME", "ERROR")
        table(columns, [_attempt_cells(attempt) for attempt in attempts])
    if body:
        typer.echo()
        for name, private in _private(event).items():
            shown = json.dumps(private, indent=2) if private != "" else "none; it was purged"
            typer.echo(f"{name}: {shown}")


def redeliver(
    event_id: EventId,
    *,
    handlers: Annotated[
        list[str] | None,
        typer.Option(
            "--handler",
            metavar="NAME",
            help="Only this one; may be given many times. All that want the event without it.",
        ),
    ] = None,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
) -> None:
    """Let handlers act on a stored event again.

    Also those that were done. It becomes due at once; the running `serve` or `worker` does it,
    or the next `drain`.

    Example: wavehook redeliver wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:completed --handler keep

    Exit codes: 0 done, 1 no such event, or no handler wants it, 2 usage or settings.
    """
    given = settings(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
    )
    from receiver.handlers.loading import install
    from receiver.handlers.routing import match
    from receiver.intake import Intake

    installed = install(given.handlers, given.modules)
    unknown = set(handlers or ()) - {handler.name for handler in installed}
    if unknown:
        known = ", ".join(handler.name for handler in installed) or "none"
        raise typer.BadParameter(
            f"there is no handler {', '.join(sorted(unknown))}; known: {known}",
            param_hint="--handler",
        )
    routes = [handler.route for handler in installed]

    async def work(store: Store) -> list[str]:
        event = await stored(store, event_id)
        names = handlers or list(match(event, routes))
        if not names:
            raise WavehookError("no handler wants this event; name one with --handler")
        if not event.body:
            raise WavehookError(PURGED)
        await Intake({}, routes, store).replay(event_id, time.time(), names)
        return names

    names = with_store(given, work)
    if as_json:
        json_line({"event_id": event_id, "handlers": list[JSON](names)})
    else:
        typer.echo(f"Due again for {', '.join(names)}.")


def _private(event: Event) -> dict[str, JSON]:
    try:
        return {"context": event.context, "body": event.body.decode()}
    except UnicodeDecodeError:
        coded = base64.b64encode(event.body).decode()
        return {"context": event.context, "body_base64": coded}


def _dispatch_cells(dispatch: Dispatch) -> tuple[str, ...]:
    due = (moment(dispatch.due_at) or "-") if dispatch.state.open else "-"
    if dispatch.waiting:
        due = f"after {', '.join(dispatch.after)}"
    number = str(dispatch.attempt)
    return dispatch.handler, dispatch.state.value, number, due, dispatch.error or "-"


def _attempt_cells(attempt: Attempt) -> tuple[str, ...]:
    ended = attempt.ended_at
    took = "-" if ended is None else f"{max(ended - attempt.started_at, 0.0):.3f}"
    started, outcome = moment(attempt.started_at) or "-", attempt.outcome or "running"
    return attempt.handler, str(attempt.number), started, took, outcome, attempt.error or "-"


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
