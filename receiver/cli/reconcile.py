"""`wavehook reconcile`: bring the results that no webhook brought, once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.database import existing, open_ledger
from receiver.cli.options import (
    AsJson,
    Config,
    Database,
    LogLevel,
    Modules,
    Overdue,
    Pooler,
    Schema,
    reading,
)
from receiver.errors import SettingsError, WavehookError
from submitter.cli.run import json_line, plain, tell_retries
from submitter.ledger.base import MAX_OPEN_ENTRIES
from submitter.reconcile.schedule import KEPT

if TYPE_CHECKING:
    from receiver.config import Settings
    from receiver.results.reconcile import InboxGateway
    from submitter.ledger.base import Entry, Ledger
    from submitter.reconcile.reconciler import Reconciler
    from submitter.reconcile.report import Report


@dataclass(slots=True)
class Counts:
    """What a run came to, in numbers of tasks; in a dry run, what it would come to.

    Attributes:
        asked: questions about a task.
        found: results that were brought to the inbox.
        settled: lost answers whose task was found.
        rejected: lost answers that had created nothing.
        open: submissions whose end is still not known.
        lost: keys of those whose answer is lost and whose task is not found yet.
        tasks: ids of what was found.
        error: why it ended early.
    """

    asked: int = 0
    found: int = 0
    settled: int = 0
    rejected: int = 0
    open: int = 0
    lost: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    error: str | None = None

    def add(self, report: Report) -> bool:
        """Add a round; False where it came to nothing, or failed."""
        self.asked += report.asked
        self.found += report.found
        self.settled += report.settled
        self.rejected += report.rejected
        self.tasks += report.tasks
        self.error = report.error
        done = report.asked + report.found + report.settled + report.rejected
        return done > 0 and report.error is None


def reconcile(
    *,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Compare the API's history of 7 days with the inbox too; that also finds what "
            "other programs have submitted, once it is older than WAVEHOOK_OVERDUE.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    as_json: AsJson = False,
    overdue: Overdue = None,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
    log_level: LogLevel = None,
) -> None:
    """Bring the results whose webhook did not come.

    `serve` does that by itself; this is for a schedule, and for after an outage. Submissions that
    are overdue are asked for, lost answers are looked for in the API's history, and what is found
    goes the way of every webhook, but that handlers are run by `serve`, `worker` or `drain`.
    The same result by webhook and by this command is one event.

    Example: wavehook reconcile --history --dry-run

    Exit codes: 0 done, 1 the API refused or is away, or no database, 2 usage or settings.
    """
    found = reading(
        overdue=overdue,
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
        log_level=log_level,
    )
    faults = list(found.faults)
    if found.settings.api_key is None:
        faults.append("WAVESPEED_API_KEY: it is not set; expected the key, to ask the API with")
    if faults:
        raise SettingsError(faults)
    tell_retries()
    counts = asyncio.run(_run(found.settings, history=history, dry_run=dry_run))
    if as_json:
        json_line(
            {
                "dry_run": dry_run,
                "asked": counts.asked,
                "found": counts.found,
                "settled": counts.settled,
                "rejected": counts.rejected,
                "open": counts.open,
                "lost": [*counts.lost],
                "tasks": [*counts.tasks],
                "error": counts.error,
            }
        )
    else:
        typer.echo(_words(counts, dry_run=dry_run))
        for key in counts.lost:
            typer.echo(
                f"  {plain(key)}: its answer is lost, and which task is its own not clear yet"
            )
    if counts.error is not None:
        raise WavehookError(f"it ended early: {counts.error}")


async def _run(settings: Settings, *, history: bool, dry_run: bool) -> Counts:
    from receiver.api_client import make_api_client
    from receiver.build import inbox_gateway
    from receiver.results.reconcile import make_reconciler
    from submitter.errors import SubmitterError
    from submitter.ledger.base import State

    counts = Counts()
    try:
        async with (
            existing(settings) as store,
            open_ledger(settings) as ledger,
            make_api_client(settings) as calls,
        ):
            gateway = inbox_gateway(settings, store)
            once = make_reconciler(calls, ledger, gateway, settings.overdue)
            try:
                if dry_run:
                    await _look(counts, ledger)
                else:
                    while counts.add(await once.round()):
                        pass
                if history and counts.error is None:
                    await _compare(counts, once, gateway, dry_run=dry_run)
            finally:
                left = await ledger.open_entries(limit=MAX_OPEN_ENTRIES)
                counts.open = len(left)
                counts.lost = [entry.key for entry in left if entry.state is State.UNKNOWN]
    except SubmitterError as error:
        counts.error = str(error)
    return counts


async def _look(counts: Counts, ledger: Ledger) -> None:
    """What a round would begin with."""
    from submitter.ledger.base import State

    now = time.time()
    for entry in await ledger.open_entries(limit=MAX_OPEN_ENTRIES):
        if not _due(entry, now):
            continue
        if entry.state is State.ACCEPTED:
            counts.asked += 1
        else:
            counts.settled += 1
    handed_over = await ledger.undelivered(now, limit=MAX_OPEN_ENTRIES)
    counts.found += len(handed_over)
    counts.tasks += [entry.task_id for entry in handed_over if entry.task_id]


def _due(entry: Entry, now: float) -> bool:
    from submitter.ledger.base import State

    at = entry.until if entry.state is State.INTENDED else entry.ask_at
    return at is not None and at <= now


async def _compare(
    counts: Counts, once: Reconciler, gateway: InboxGateway, *, dry_run: bool
) -> None:
    report = await once.compare_history(
        since=time.time() - KEPT, known=gateway.known, dry_run=dry_run
    )
    counts.add(report)


def _words(counts: Counts, *, dry_run: bool) -> str:
    if dry_run:
        return (
            f"Would ask about {counts.asked}, look for {counts.settled} lost in the history, "
            f"bring {counts.found} to the inbox; {counts.open} open. Nothing was changed."
        )
    return (
        f"{counts.found} found, {counts.asked} asked about, {counts.settled} lost answers settled, "
        f"{counts.rejected} had created nothing; {counts.open} still open."
    )
