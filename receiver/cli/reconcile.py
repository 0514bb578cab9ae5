"""`wavehook reconcile`: fetch the results whose webhook did not arrive, once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.database import ledger_session, store_session
from receiver.cli.options import DATABASE, Flags, JsonLines, setting_flags
from receiver.errors import SettingsError, WavehookError
from submitter.cli.run import json_line, plain, print_retries
from submitter.ledger.base import MAX_OPEN_ENTRIES, State
from submitter.reconcile.schedule import API_RETENTION_S

if TYPE_CHECKING:
    from receiver.config import Settings
    from receiver.results.reconcile import InboxGateway
    from submitter.ledger.base import Entry, Ledger
    from submitter.reconcile.deliver import ReconcileReport
    from submitter.reconcile.reconciler import Reconciler


@dataclass(slots=True)
class ReconcileCounts:
    """Numbers of tasks of one run; in a dry run, those that it would handle.

    Attributes:
        asked: requests about a task.
        found: results that were added to the inbox.
        settled: submits with a lost response whose task was found.
        rejected: submits with a lost response that had created no task.
        open: submissions whose result is still not known.
        lost: keys of submissions with a lost response whose task is not found yet.
        tasks: ids of the tasks in `found`.
        error: why the run ended early.
    """

    asked: int = 0
    found: int = 0
    settled: int = 0
    rejected: int = 0
    open: int = 0
    lost: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    error: str | None = None

    def add(self, report: ReconcileReport) -> bool:
        """Add a round; False if it did nothing, or failed."""
        self.asked += report.asked
        self.found += report.found
        self.settled += report.settled
        self.rejected += report.rejected
        self.tasks += report.tasks
        self.error = report.error
        done = report.asked + report.found + report.settled + report.rejected
        return done > 0 and report.error is None


@setting_flags("overdue", *DATABASE, "modules", "log_level")
def reconcile(
    *,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Compare the API's history of 7 days with the inbox too. This also finds tasks "
            "that other programs submitted, once they are older than WAVEHOOK_OVERDUE.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
    ] = False,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Fetch the results whose webhook did not arrive.

    `serve` does this by itself; this command is for a schedule, and for after an outage. Overdue
    tasks are looked up by id, and submits whose response was lost are looked for in the API's
    history. Results are stored in the inbox as if by webhook, and the same result by webhook is a
    duplicate. Handlers run in `serve`, `worker` or `drain`.

    Example: wavehook reconcile --history --dry-run

    Exit codes: 0 done, 1 the API refused or is away, or no database, 2 usage or settings.
    """
    found = flags.reading()
    faults = list(found.faults)
    if found.settings.api_key is None:
        faults.append("WAVESPEED_API_KEY: it is not set; expected the key of the API")
    if faults:
        raise SettingsError(faults)
    print_retries()
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
        typer.echo(_summary(counts, dry_run=dry_run))
        for key in counts.lost:
            typer.echo(f"  {plain(key)}: the response was lost, and its task is not found yet")
    if counts.error is not None:
        raise WavehookError(f"stopped early: {counts.error}")


async def _run(settings: Settings, *, history: bool, dry_run: bool) -> ReconcileCounts:
    from receiver.api_client import make_api_client
    from receiver.build import inbox_gateway
    from receiver.results.reconcile import make_reconciler
    from submitter.errors import SubmitterError

    counts = ReconcileCounts()
    try:
        async with (
            store_session(settings) as store,
            ledger_session(settings) as ledger,
            make_api_client(settings) as calls,
        ):
            gateway = inbox_gateway(settings, store)
            once = make_reconciler(calls, ledger, gateway, settings.overdue)
            try:
                if dry_run:
                    await _count_due(counts, ledger)
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


async def _count_due(counts: ReconcileCounts, ledger: Ledger) -> None:
    """Count what a round would do first."""
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
    at = entry.until if entry.state is State.INTENDED else entry.ask_at
    return at is not None and at <= now


async def _compare(
    counts: ReconcileCounts, once: Reconciler, gateway: InboxGateway, *, dry_run: bool
) -> None:
    report = await once.compare_history(
        since=time.time() - API_RETENTION_S, known=gateway.known, dry_run=dry_run
    )
    counts.add(report)


def _summary(counts: ReconcileCounts, *, dry_run: bool) -> str:
    if dry_run:
        return (
            f"Nothing was changed. Tasks to look up: {counts.asked}, lost responses to search for: "
            f"{counts.settled}, results to store: {counts.found}, open: {counts.open}."
        )
    return (
        f"Results found: {counts.found}, tasks looked up: {counts.asked}, lost responses settled: "
        f"{counts.settled}, without a task: {counts.rejected}, still open: {counts.open}."
    )
