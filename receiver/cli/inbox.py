"""`wavehook events`, `show`, `redeliver` and `dead`: read the inbox, and run handlers again."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from receiver.cli.database import BODY_PURGED, find_event, with_store
from receiver.cli.options import DATABASE, Flags, JsonLines, setting_flags
from receiver.errors import WavehookError
from receiver.event import Attempt, Dispatch, DispatchState, Event
from receiver.stores.base import Listed, Store
from submitter.cli.run import json_line, plain
from submitter.prediction import JSON
from submitter.timestamps import rfc3339

PARKED = "Parked: the signature is valid, but the body is not what this source sends; see --body."

EventId = Annotated[
    str,
    typer.Argument(
        metavar="EVENT_ID", help="The id, as `wavehook events` shows it.", show_default=False
    ),
]


@setting_flags(*DATABASE)
def events(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="Maximum number of lines.")] = 50,
    type: Annotated[
        str | None, typer.Option(help="Only this type, such as prediction.failed or parked.")
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(help="Only events before this `seq`: the last one of the page before."),
    ] = None,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """List stored events and their dispatches, newest first.

    Example: wavehook events --type prediction.failed --json | jq -r .id

    Exit codes: 0 done, 1 there is no database, 2 usage or settings.
    """

    async def work(store: Store) -> list[Listed]:
        return await store.events(limit=limit, before=before, type=type)

    rows = with_store(flags.settings(), work)
    if as_json:
        for row in rows:
            dispatches: dict[str, JSON] = {k: v.value for k, v in row.dispatches.items()}
            json_line({"seq": row.seq, **event_fields(row.event), "dispatches": dispatches})
    elif not rows:
        typer.echo("No events.")
    else:
        cells = [
            (str(row.seq), rfc3339(row.event.received_at) or "-", row.event.type, row.event.id)
            for row in rows
        ]
        handled = [states(row.dispatches) for row in rows]
        heads = ("SEQ", "RECEIVED", "TYPE", "ID", "HANDLERS")
        table(heads, [(*cell, state) for cell, state in zip(cells, handled, strict=True)])


@setting_flags(*DATABASE)
def show(
    event_id: EventId,
    *,
    body: Annotated[
        bool, typer.Option("--body", help="Show the body and the context too; both may be private.")
    ] = False,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Show one event with its dispatches and all attempts.

    Example: wavehook show wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:completed

    Exit codes: 0 done, 1 there is no such event or no database, 2 usage or settings.
    """

    async def work(store: Store) -> tuple[Event, list[Dispatch], list[Attempt]]:
        event = await find_event(store, event_id)
        return event, await store.dispatches(event_id), await store.attempts(event_id)

    event, dispatches, attempts = with_store(flags.settings(), work)
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
        typer.echo("No handler matched it when it was stored; `wavehook redeliver` runs one now.")
    if attempts:
        typer.echo()
        columns = ("HANDLER", "ATTEMPT", "STARTED", "SECONDS", "OUTCOME", "ERROR")
        table(columns, [_attempt_cells(attempt) for attempt in attempts])
    if body:
        typer.echo()
        for name, private in _private(event).items():
            shown = (
                json.dumps(private, indent=2) if private != "" else "none, because it was purged"
            )
            typer.echo(f"{name}: {shown}")


@setting_flags(*DATABASE, "modules")
def redeliver(
    event_id: EventId,
    *,
    handlers: Annotated[
        list[str] | None,
        typer.Option(
            "--handler",
            metavar="NAME",
            help="Run this handler; may be given many times. [default: all that match the event]",
        ),
    ] = None,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Run handlers again for a stored event.

    Also those that were done. The event is due at once: a running `serve` or `worker` handles it,
    or else the next `drain`.

    Example: wavehook redeliver wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:completed --handler keep

    Exit codes: 0 done, 1 no such event, or no handler matches it, 2 usage or settings.
    """
    given = flags.settings()
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
        event = await find_event(store, event_id)
        names = handlers or list(match(event, routes))
        if not names:
            raise WavehookError("no handler matches this event; name one with --handler")
        if not event.body:
            raise WavehookError(BODY_PURGED)
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
    due = (rfc3339(dispatch.due_at) or "-") if dispatch.state.open else "-"
    if dispatch.waiting:
        due = f"after {', '.join(dispatch.after)}"
    number = str(dispatch.attempt)
    return dispatch.handler, dispatch.state.value, number, due, dispatch.error or "-"


def _attempt_cells(attempt: Attempt) -> tuple[str, ...]:
    ended = attempt.ended_at
    took = "-" if ended is None else f"{max(ended - attempt.started_at, 0.0):.3f}"
    started, outcome = rfc3339(attempt.started_at) or "-", attempt.outcome or "running"
    return attempt.handler, str(attempt.number), started, took, outcome, attempt.error or "-"


DEAD_PAGE_SIZE = 500
"""Dead dispatches that are read together."""

dead_commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List dead dispatches, or retry them.",
)


@dead_commands.command("list")
@setting_flags(*DATABASE)
def list_dead(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="Maximum number of lines.")] = 50,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """List dead dispatches, those that failed for good, latest first.

    Example: wavehook dead list --json | jq -r '[.event_id, .handler, .error] | @tsv'

    Exit codes: 0 done, 1 there is no database, 2 usage or settings.
    """

    async def work(store: Store) -> list[Dispatch]:
        return await store.dead(limit=limit)

    rows = with_store(flags.settings(), work)
    if as_json:
        for row in rows:
            json_line(dispatch_fields(row))
    elif not rows:
        typer.echo("No dead dispatches.")
    else:
        cells = [
            (rfc3339(row.settled_at) or "-", row.handler, str(row.attempt), row.event_id)
            for row in rows
        ]
        heads = ("DIED", "HANDLER", "ATTEMPTS", "EVENT", "ERROR")
        errors = [row.error or "-" for row in rows]
        table(heads, [(*cell, error) for cell, error in zip(cells, errors, strict=True)])


@dead_commands.command("retry")
@setting_flags(*DATABASE)
def retry_dead(
    event_id: Annotated[
        str | None,
        typer.Argument(metavar="EVENT_ID", help="Retry those of this event.", show_default=False),
    ] = None,
    handler: Annotated[
        str | None,
        typer.Argument(
            metavar="HANDLER",
            help="Retry only this handler. [default: all of the event]",
            show_default=False,
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Retry all dead dispatches.")] = False,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Make dead dispatches due at once, with all their attempts again.

    A running `serve` or `worker` runs them, or else the next `drain`.

    Example: wavehook dead retry wavespeed:7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f:failed team

    Exit codes: 0 done, 1 no such dispatch is dead, 2 usage or settings.
    """
    if everything == (event_id is not None):
        raise typer.BadParameter("expected either an event's id or --all", param_hint="EVENT_ID")

    async def work(store: Store) -> tuple[list[Dispatch], int]:
        if event_id is None:
            return await _retry_all(store)
        return await _retry_one(store, event_id, handler), 0

    done, left = with_store(flags.settings(), work)
    if as_json:
        for dispatch in done:
            fields: dict[str, JSON] = {"event_id": dispatch.event_id, "handler": dispatch.handler}
            json_line(fields)
    else:
        typer.echo(f"{len(done)} dispatch{'es' * (len(done) != 1)} due again")
    if left:
        typer.echo(f"{left} stay dead: the bodies of their events were purged", err=True)


async def _retry_one(store: Store, event_id: str, handler: str | None) -> list[Dispatch]:
    event = await find_event(store, event_id)
    dead = [
        dispatch
        for dispatch in await store.dispatches(event_id)
        if handler in (None, dispatch.handler) and dispatch.state is DispatchState.DEAD
    ]
    if dead and not event.body:
        raise WavehookError(BODY_PURGED)
    done = [dispatch for dispatch in dead if await _retry(store, dispatch)]
    if not done:
        raise WavehookError("no such dispatch is dead; `wavehook dead list` shows those that are")
    return done


async def _retry_all(store: Store) -> tuple[list[Dispatch], int]:
    """The dispatches that are due again, and the number of those whose body was purged."""
    seen: set[str] = set()
    done: list[Dispatch] = []
    left = 0
    while True:
        # A dispatch that dies again while this runs is not retried twice.
        new = [d for d in await store.dead(limit=DEAD_PAGE_SIZE + left) if d.key not in seen]
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


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as their longest cell."""
    lines = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def event_fields(event: Event) -> dict[str, JSON]:
    """JSON fields of an event, without its private parts: body and context."""
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "model": event.model,
        "origin": event.origin.value,
        "webhook_id": event.webhook_id,
        "occurred_at": rfc3339(event.occurred_at),
        "received_at": rfc3339(event.received_at),
    }


def dispatch_fields(dispatch: Dispatch) -> dict[str, JSON]:
    """JSON fields of a dispatch."""
    return {
        "event_id": dispatch.event_id,
        "handler": dispatch.handler,
        "state": dispatch.state.value,
        "attempt": dispatch.attempt,
        "due_at": rfc3339(dispatch.due_at) if dispatch.state.open else None,
        "waiting_for": list(dispatch.after) if dispatch.waiting else [],
        "error": dispatch.error,
        "result": dispatch.result,
        "settled_at": rfc3339(dispatch.settled_at),
    }


def attempt_fields(attempt: Attempt) -> dict[str, JSON]:
    """JSON fields of an attempt."""
    return {
        "handler": attempt.handler,
        "number": attempt.number,
        "owner": attempt.owner,
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": attempt.error,
    }


def states(dispatches: Mapping[str, DispatchState]) -> str:
    """The states of one event's dispatches, on one line."""
    return ", ".join(f"{name} {state.value}" for name, state in dispatches.items()) or "-"
