"""`wavehook purge`, `migrate` and `secret`."""

from __future__ import annotations

import asyncio
import base64
import secrets
import sys
import time
from typing import Annotated

import typer

from receiver.cli.database import ledger_session, with_store
from receiver.cli.options import DATABASE, Flags, JsonLines, setting_flags
from receiver.cli.startup import open_timeout, open_with_retries
from receiver.config import Settings
from receiver.errors import SettingsError, WavehookError
from receiver.stores.base import KEY_DAYS, Purged, Store
from submitter.cli.run import json_line, print_retries

DAY_S = 86400.0


@setting_flags(*DATABASE)
def purge(
    *,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=36500,
            metavar="DAYS",
            help="Age from which payloads are removed. WAVEHOOK_RETENTION_DAYS [default: 30]",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Remove the bodies of old events, and old submissions.

    Only finished events are touched: all their dispatches are done or dead. Their attempts are
    removed too. Deduplication keys and submissions stay for at least 30 days, so that no duplicate
    is handled again and no task is billed twice.

    Example: wavehook purge --older-than 7 --yes

    Exit codes: 0 done, 1 there is no database, or not confirmed, 2 usage or settings.
    """
    given = flags.settings()
    days = given.retention_days if older_than is None else older_than
    keys = max(days, KEY_DAYS)

    async def work(store: Store) -> tuple[Purged, int]:
        now = time.time()
        purged = await store.purge(before=now - days * DAY_S, now=now)
        return purged, await _purge_ledger(given, now - keys * DAY_S)

    if not yes:
        if as_json or not sys.stdin.isatty():
            raise typer.BadParameter(
                "there is no terminal to ask on; add --yes", param_hint="--yes"
            )
        what = f"Remove payloads older than {days} days from {given.database_label}?"
        if not typer.confirm(what):
            raise typer.Exit(1)
    purged, submissions = with_store(given, work)
    if as_json:
        counts = {"payloads": purged.payloads, "events": purged.events}
        json_line({**counts, "submissions": submissions})
    else:
        typer.echo(
            f"{purged.payloads} payload{'s' * (purged.payloads != 1)} removed. Older than {keys} "
            f"days, removed with their keys: {purged.events} events, {submissions} submissions."
        )


async def _purge_ledger(given: Settings, before: float) -> int:
    from submitter.errors import LedgerUnavailable

    try:
        async with ledger_session(given) as ledger:
            return await ledger.purge(before)
    except LedgerUnavailable as error:
        raise WavehookError(str(error)) from None


@setting_flags(*DATABASE)
def migrate(*, flags: Flags) -> None:
    """Create the database, or migrate it to this version.

    `serve`, `worker` and `drain` do it at their start; this command is for a deployment that
    migrates in a separate step. Several may run at the same time. A database of a newer version
    is refused.

    Example: wavehook migrate --database sqlite:////var/lib/wavehook/wavehook.db

    Exit codes: 0 up to date, 1 it cannot be done, 2 usage or settings.
    """
    given = flags.settings()
    from receiver.database import open_store, settings_ledger
    from receiver.web.lifecycle import Lifecycle

    async def work() -> None:
        database = Lifecycle(
            open_store(given), None, 0, background=False, ledger=settings_ledger(given)
        )
        if not await open_with_retries(database.open, open_timeout(given)):
            raise WavehookError("stopped by a signal")
        await database.stop()

    asyncio.run(work())
    typer.echo(f"The database {given.database_label} is up to date.")


@setting_flags("config")
def secret(
    *,
    new: Annotated[
        bool,
        typer.Option("--new", help="Generate a secret for a sender of your own, without the API."),
    ] = False,
    seal_key: Annotated[
        bool,
        typer.Option("--seal-key", help="Generate a key for WAVEHOOK_SEAL_KEYS, without the API."),
    ] = False,
    flags: Flags,
) -> None:
    """Print the account's webhook secret.

    It is fetched from the API with WAVESPEED_API_KEY. Set it as WAVEHOOK_WAVESPEED_SECRETS, and
    `serve` starts without asking the API. Nothing else is printed on standard output.

    Example: export WAVEHOOK_WAVESPEED_SECRETS=$(wavehook secret)

    Exit codes: 0 done, 1 the API did not give it, 2 usage or settings.
    """
    if new and seal_key:
        raise typer.BadParameter("expected either --new or --seal-key", param_hint="--new")
    if new:
        typer.echo(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    elif seal_key:
        typer.echo(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    else:
        typer.echo(_fetch(flags.settings()))


def _fetch(given: Settings) -> str:
    if given.api_key is None:
        raise SettingsError(
            ["WAVESPEED_API_KEY: it is not set; expected the key that fetches the secret"]
        )
    from receiver.api_client import fetch_secret
    from submitter.errors import SubmitterError

    print_retries()
    try:
        return fetch_secret(given)
    except (SubmitterError, TimeoutError) as error:
        raise WavehookError(
            f"the API did not give the secret: {str(error) or 'no answer'}"
        ) from None
