"""What a batch comes to before anything is sent: rows read, known ones found, all checked.

What a person asks of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from submitter.api import requests
from submitter.batch.batch import SENDERS, Batch
from submitter.batch.prices import Prices
from submitter.batch.results import PAGE, read_earlier
from submitter.batch.rows import Keys, Standing, properties, read_rows
from submitter.client import WaveSpeed
from submitter.errors import BadInput, Fault, OverBudget
from submitter.prediction import JSON
from submitter.reconcile.schedule import Schedule
from submitter.settings import SubmitSettings


@dataclass(frozen=True, slots=True)
class Wanted:
    """The words of one command.

    Attributes:
        inputs: the file with the rows.
        model: the model's id.
        out: where the results go.
        name: of the batch; None: the path of `out`.
        max_cost: USD for all rows that are still to be paid for.
        context: of rows that bring none of their own.
        webhook: whether to ask for webhooks.
        retry: whether to pay again for what is shown to have failed.
    """

    inputs: Path
    model: str
    out: Path
    name: str | None = None
    max_cost: float | None = None
    context: JSON = field(default=None, repr=False)
    webhook: bool = True
    retry: bool = False


WINDOW = 1000
"""Rows that are seen through at one time, where the settings set no limit."""

MANY = 5000
"""Rows whose check takes long enough for a person to wonder."""

SHOWN = 20
"""Bad rows that are shown; the results have all."""


async def plan(
    wave: WaveSpeed, given: SubmitSettings, wanted: Wanted, say: Callable[[str], None]
) -> Batch:
    """Make ready what can be run; nothing is sent yet.

    Args:
        wave: the client, entered.
        given: its settings.
        wanted: what to do.
        say: tells a person of bad rows, line by line.

    Raises:
        BadInput: the files cannot be used as they are, or the cap cannot be held.
        BadSettings: a context needs a public URL and a seal.
        OverBudget: the rows would cost too much.
        AuthFailed: the API does not accept the key.
        Unavailable: there is a cap, and the API does not tell prices now.
        LedgerUnavailable: it cannot be read.
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
        heard=wanted.webhook and given.public_url is not None,
        # Somebody is always in line for the place that is free next.
        window=WINDOW if given.in_flight is None else given.in_flight + SENDERS,
    )
    await batch.look_up(rows)
    if wanted.retry:
        say(f"Submitted again, because they failed: {batch.pay_again(earlier.failed)}")
    if len(rows) >= MANY:
        say(f"Checking {len(rows)} rows.")
    prices = Prices(lambda input: wave.price(wanted.model, input), schemas)
    await batch.check(prices)
    tell_rows(batch, Standing.INVALID, "cannot be sent", say)
    trouble = await prices.ask()
    total, unknown = batch.price(prices)
    if wanted.max_cost is not None:
        if trouble is not None:
            raise trouble
        if unknown:
            what = f"cannot be held: the API names no price for {unknown} of the rows"
            raise BadInput([Fault("--max-cost", what)])
        if total > wanted.max_cost:
            raise OverBudget(total, wanted.max_cost)
    return batch


async def _same_ledger(wave: WaveSpeed, out: Path, submitted: Sequence[str]) -> None:
    """See to it that a results file and the ledger tell the same of what is paid for."""
    missing = 0
    for start in range(0, len(submitted), PAGE):
        page = submitted[start : start + PAGE]
        missing += len(page) - len(await wave.find(page))
    if missing:
        reason = (
            f"shows {missing} submitted rows that the database (WAVEHOOK_DATABASE) does not know, "
            "so that they would be paid for again: use the one of that time, or another --out"
        )
        raise BadInput([Fault(str(out), reason)])


def tell_rows(batch: Batch, standing: Standing, what: str, say: Callable[[str], None]) -> None:
    """Tell which rows stand badly, and why.

    Args:
        batch: the batch.
        standing: of those rows.
        what: is wrong with them, as the end of a sentence.
        say: tells a person, line by line.
    """
    bad = [row for row in batch.rows if row.standing is standing]
    if not bad:
        return
    say(f"{len(bad)} of {len(batch.rows)} rows {what}:")
    for row in bad[:SHOWN]:
        say(f"  line {row.line}: {row.error}")
    if len(bad) > SHOWN:
        say(f"  and {len(bad) - SHOWN} more")
