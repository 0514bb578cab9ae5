"""Plan of a batch: rows are read, found in the ledger, validated and priced before any submit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from submitter.api import requests
from submitter.batch.batch import MAX_CONCURRENT_SUBMITS, Batch
from submitter.batch.prices import Prices
from submitter.batch.results import PAGE_ROWS, read_earlier
from submitter.batch.rows import Keys, RowState, properties, read_rows
from submitter.client import WaveSpeed
from submitter.errors import BadInput, Fault, OverBudget
from submitter.prediction import JSON
from submitter.reconcile.schedule import Schedule
from submitter.settings import SubmitSettings


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Arguments of one batch.

    Attributes:
        inputs: the file with the rows.
        model: the model's id.
        out: the results file.
        name: name of the batch; by default the path of `out`.
        max_cost: USD; cap for all rows that are not submitted yet.
        context: context of rows without one of their own.
        webhook: ask for webhooks.
        retry: submit the rows again that failed according to the results file.
    """

    inputs: Path
    model: str
    out: Path
    name: str | None = None
    max_cost: float | None = None
    context: JSON = field(default=None, repr=False)
    webhook: bool = True
    retry: bool = False


DEFAULT_OPEN_ROWS = 1000
"""Rows in progress at the same time, if the settings have no limit."""

SLOW_CHECK_ROWS = 5000
"""Number of rows from which checking takes noticeable time and is announced."""

MAX_SHOWN_ROWS = 20
"""Faulty rows that are printed; the results file has all."""


async def plan(
    wave: WaveSpeed, given: SubmitSettings, wanted: BatchRequest, say: Callable[[str], None]
) -> Batch:
    """Read, check and price the rows of a batch; nothing is submitted yet.

    Args:
        wave: the client, entered.
        given: its settings.
        wanted: the arguments of the batch.
        say: prints a line for the user, such as a faulty row.

    Raises:
        BadInput: a file cannot be used, or a price for `max_cost` is missing.
        BadSettings: a context needs a public URL and a seal key.
        OverBudget: the rows would cost more than `max_cost`.
        AuthFailed: the API does not accept the key.
        Unavailable: prices are needed for `max_cost`, and the API does not answer.
        LedgerUnavailable: the ledger cannot be read.
    """
    if fault := requests.model_fault(wanted.model):
        raise BadInput([fault])
    name = str(wanted.out.resolve()) if wanted.name is None else wanted.name
    keys = Keys(name, wanted.model)
    earlier = read_earlier(wanted.out, keys.prefix)
    await _same_ledger(wave, wanted.out, sorted(earlier.submitted))
    schemas = properties(await wave.catalogue.model(wanted.model))
    rows = read_rows(wanted.inputs, keys, schemas, wanted.context)
    batch = Batch(
        wave,
        wanted.model,
        rows,
        schemas=schemas,
        schedule=Schedule(given.overdue),
        webhook=wanted.webhook,
        receiver_reports=wanted.webhook and given.public_url is not None,
        # Enough rows wait for the limit that each free slot is used at once.
        window=DEFAULT_OPEN_ROWS
        if given.in_flight is None
        else given.in_flight + MAX_CONCURRENT_SUBMITS,
    )
    await batch.load_known(rows)
    if wanted.retry:
        say(f"Submitted again, because they failed: {batch.resubmit_failed(earlier.failed)}")
    if len(rows) >= SLOW_CHECK_ROWS:
        say(f"Checking {len(rows)} rows.")
    prices = Prices(lambda input: wave.price(wanted.model, input), schemas)
    await batch.check(prices)
    print_rows(batch, RowState.INVALID, "cannot be sent", say)
    problem = await prices.ask()
    total, unknown = batch.price(prices)
    if wanted.max_cost is not None:
        if problem is not None:
            raise problem
        if unknown:
            what = f"cannot be checked: the API has no price for {unknown} of the rows"
            raise BadInput([Fault("--max-cost", what)])
        if total > wanted.max_cost:
            raise OverBudget(total, wanted.max_cost)
    return batch


async def _same_ledger(wave: WaveSpeed, out: Path, submitted: Sequence[str]) -> None:
    """Make sure that the ledger knows every row that the results file shows as submitted."""
    missing = 0
    for start in range(0, len(submitted), PAGE_ROWS):
        page = submitted[start : start + PAGE_ROWS]
        missing += len(page) - len(await wave.find(page))
    if missing:
        reason = (
            f"shows {missing} submitted rows that the database (WAVEHOOK_DATABASE) does not know. "
            "They would be billed again: use the database of that run, or another --out"
        )
        raise BadInput([Fault(str(out), reason)])


def print_rows(batch: Batch, state: RowState, what: str, say: Callable[[str], None]) -> None:
    """Print the rows in a bad state, with their errors.

    Args:
        batch: the batch.
        state: the state.
        what: the end of the sentence "3 of 10 rows …".
        say: prints a line.
    """
    bad = [row for row in batch.rows if row.state is state]
    if not bad:
        return
    say(f"{len(bad)} of {len(batch.rows)} rows {what}:")
    for row in bad[:MAX_SHOWN_ROWS]:
        say(f"  line {row.line}: {row.error}")
    if len(bad) > MAX_SHOWN_ROWS:
        say(f"  and {len(bad) - MAX_SHOWN_ROWS} more")
