"""`wavehook purge`, `migrate` and `secret`."""

from __future__ import annotations

import asyncio
import base64
import secrets
import sys
import time
from typing import Annotated

import typer

from receiver.cli.database import open_ledger, with_store
from receiver.cli.options import AsJson, Config, Database, Pooler, Schema, settings
from receiver.config import Settings
from receiver.errors import SettingsError, WavehookError
from receiver.stores.base import KEY_DAYS, Purged, Store
from submitter.cli.run import json_line, tell_retries

DAY = 86400.0


def purge(
    *,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=36500,
            metavar="DAYS",
            help="Age from which payloads go. WAVEHOOK_RETENTION_DAYS, default: 30",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """Remove the bodies of old, finished events, and old submissions that have ended.

    Their attempts go too. What makes a duplicate a duplicate stays for at least 30 days, and so do
    submissions: their keys keep what is paid for from being paid again. Nothing of an event with
    unfinished or waiting work is touched; dead dispatches are finished work.

    Example: wavehook purge --older-than 7 --yes

    Exit codes: 0 done, 1 there is no database, or not confirmed, 2 usage or settings.
    """
    given = settings(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
    )
    days = given.retention_days if older_than is None else older_than
    keys = max(days, KEY_DAYS)

    async def work(store: Store) -> tuple[Purged, int]:
        now = time.time()
        purged = await store.purge(before=now - days * DAY, now=now)
        return purged, await _purge_ledger(given, now - keys * DAY)

    if not yes:
        if as_json or not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here; add --yes", param_hint="--yes")
        what = f"Remove payloads older than {days} days from {given.database_label}?"
        if not typer.confirm(what):
            raise typer.Exit(1)
    purged, submissions = with_store(given, work)
    if as_json:
        counts = {"payloads": purged.payloads, "events": purged.events}
        json_line({**counts, "submissions": submissions})
    else:
        typer.echo(
            f"{purged.payloads} payload{'s' * (purged.payloads != 1)} removed, and what is older "
            f"than {keys} days with its keys: {purged.events} events, {submissions} submissions."
        )


async def _purge_ledger(given: Settings, before: float) -> int:
    from submitter.errors import LedgerUnavailable

    try:
        async with open_ledger(given) as ledger:
            return await ledger.purge(before)
    except LedgerUnavailable as error:
        raise WavehookError(str(error)) from None


def migrate(
    *,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
) -> None:
    """Make the database, or bring it up to date.

    Two at once do no harm. Every command does that by itself; this one is for a deployment that
    does it as a step of its own. A database of a newer version is refused.

    Example: wavehook migrate --database sqlite:////var/lib/wavehook/wavehook.db

    Exit codes: 0 up to date, 1 it cannot be done, 2 usage or settings.
    """
    given = settings(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
    )
    from receiver.cli.startup import opened, patience
    from receiver.database import ledger_of, open_store
    from receiver.web.lifecycle import Lifecycle

    async def work() -> None:
        database = Lifecycle(open_store(given), None, 0, background=False, ledger=ledger_of(given))
        if not await opened(database.open, patience(given)):
            raise WavehookError("stopped by a signal")
        await database.stop()

    asyncio.run(work())
    typer.echo(f"The database {given.database_label} is up to date.")


def secret(
    *,
    new: Annotated[
        bool, typer.Option("--new", help="Make one, for a sender of your own; asks nobody.")
    ] = False,
    seal_key: Annotated[
        bool, typer.Option("--seal-key", help="Make a key for WAVEHOOK_SEAL_KEYS; asks nobody.")
    ] = False,
    config: Config = None,
) -> None:
    """Print the account's webhook secret.

    It is fetched with WAVESPEED_API_KEY. Set it as WAVEHOOK_WAVESPEED_SECRETS, so that a start
    does not need the API. Nothing else is printed on standard output, so that it can go to
    where secrets are kept.

    Example: export WAVEHOOK_WAVESPEED_SECRETS=$(wavehook secret)

    Exit codes: 0 done, 1 the API did not give it, 2 usage or settings.
    """
    if new and seal_key:
        raise typer.BadParameter("expected one of --new and --seal-key", param_hint="--new")
    if new:
        typer.echo(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    elif seal_key:
        typer.echo(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    else:
        typer.echo(_fetched(config))


def _fetched(config: str | None) -> str:
    given = settings(config=config)
    if given.api_key is None:
        raise SettingsError(
            ["WAVESPEED_API_KEY: it is not set; expected the key, to ask for the secret with"]
        )
    from receiver.api_client import fetch_secret
    from submitter.errors import SubmitterError

    tell_retries()
    try:
        return fetch_secret(given)
    except (SubmitterError, TimeoutError) as error:
        raise WavehookError(
            f"the API did not give the secret: {str(error) or 'no answer'}"
        ) from None
