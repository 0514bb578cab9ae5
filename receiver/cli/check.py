"""`wavehook check`: is everything there that `serve` needs, and what to do where it is not.

What one look of `wavehook check` came to.

The database, as `wavehook check` looks at it: none is made.

The handlers of `wavehook check`: would each of them work?
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import AsJson, Config, Database, Modules, Pooler, Schema, option, reading
from receiver.database import open_store
from receiver.errors import SchemaMismatch, SettingsError, StoreError, StoreRefused
from submitter.cli.run import json_line, plain, tell_retries

if TYPE_CHECKING:
    from receiver.config import Settings
    from receiver.handlers.base import Installed


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look came to.

    Attributes:
        about: what was looked at.
        found: what there is.
        todo: what to do; None where all is well.
    """

    about: str
    found: str
    todo: str | None = None


ANOTHER = "name another in WAVEHOOK_DATABASE"

FEW = 8
"""Connections of one `serve`: of the store, one that listens, and two of the ledger."""


def look_at_database(settings: Settings) -> Finding:
    """Look at the database of the settings."""
    path = settings.database_path
    try:
        return asyncio.run(_server(settings)) if path is None else _file(settings, path)
    except SchemaMismatch as error:
        return Finding("database", str(error), f"it was left as it is; {ANOTHER}")
    except SettingsError as error:
        return Finding("database", "; ".join(error.faults), "pip install 'wavehook[postgres]'")
    except StoreRefused as error:
        return Finding("database", error.reason, error.todo)
    except StoreError as error:
        todo = "see that the file is whole and free, and the disk not full"
        if path is None:
            todo = "see that the server runs, and that this machine reaches it"
        return Finding("database", str(error), f"{todo}, or {ANOTHER}")


def _file(settings: Settings, path: Path) -> Finding:
    if not path.parent.is_dir():
        return Finding(
            "database", f"{path}: its folder is not there", f"make the folder {path.parent}"
        )
    if not path.exists():
        try:
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            return Finding(
                "database",
                f"{path}: its folder cannot be written ({error.strerror})",
                f"let this user write there, or {ANOTHER}",
            )
        return Finding("database", f"{path}: not there yet, made at the first start")
    return Finding("database", f"{path}: {asyncio.run(_queue(settings))}")


async def _server(settings: Settings) -> Finding:
    from receiver.stores.postgres import probe

    where = settings.database_label
    found = await probe(
        settings.database, settings.database_schema, pooler=settings.database_pooler
    )
    if found.version == 0 and not found.may_create:
        return Finding(
            "database",
            f"{where}: not there yet, and this user may not make it",
            "grant CREATE on the database to this user, or let its owner run `wavehook migrate`",
        )
    if found.version == 0:
        return Finding("database", f"{where}: not there yet, made at the first start")
    if found.version < found.newest:
        older = f"version {found.version}, brought to {found.newest} at the next start"
        return Finding("database", f"{where}: {older}")
    free = max(found.limit - found.used, 0)
    words = f"{where}: {await _queue(settings)}; version {found.version}; "
    words += f"{free} of {found.limit} connections free"
    todo = "raise max_connections of the server, or put a pooler before it"
    return Finding("database", words, todo if free < FEW else None)


async def _queue(settings: Settings) -> str:
    store = open_store(settings)
    await store.open()
    try:
        await store.ping()
        depth = (await store.stats()).depth
    finally:
        await store.close()
    waiting = sum(count for (_, state), count in depth.items() if state.open)
    dead = sum(depth.values()) - waiting
    return f"takes events; {waiting} dispatches waiting, {dead} dead"


HANDLER_TIMEOUT_S = 10.0
"""Seconds for one handler to try what it stands on."""


def handlers(settings: Settings) -> Iterator[Finding]:
    """Make the handlers as a start does, and let all at once try what they stand on."""
    from receiver.handlers.loading import install

    try:
        installed = install(settings.handlers, settings.modules)
    except SettingsError as error:
        for fault in error.faults:
            yield Finding("handlers", fault, "correct the section, or the module")
        return
    if not installed:
        yield Finding("handlers", "none: events are stored, and nothing acts on them")
    yield from asyncio.run(_look_at_all(installed))


async def _look_at_all(installed: list[Installed]) -> list[Finding]:
    named = sorted(installed, key=lambda one: one.name)
    return list(await asyncio.gather(*map(_check_handler, named)))


async def _check_handler(one: Installed) -> Finding:
    from receiver.dispatch.dispatcher import CLOSE_TIMEOUT_S

    found, wrong = "nothing to try", None
    if one.check is not None:
        found, wrong = await _outcome(one.check, HANDLER_TIMEOUT_S)
    if one.close is not None:
        _, unclosed = await _outcome(one.close, CLOSE_TIMEOUT_S)
        wrong = wrong or (f"it does not close ({unclosed})" if unclosed else None)
    text = one.masked(f"{one.name}: {wrong or found}")
    todo = f"correct [handlers.{one.name}], or see to what it stands on" if wrong else None
    return Finding("handler", text, todo)


async def _outcome(call: Callable[[], Awaitable[object]], limit: float) -> tuple[str, str | None]:
    """What a handler's own code says within `limit` seconds, and what is wrong."""
    from receiver.handlers.retry import describe

    within = asyncio.timeout(limit)
    try:
        async with within:
            said = await call()
    except Exception as error:  # noqa: BLE001 - a stranger's handler may raise anything
        return "", f"no answer within {limit:g} s" if within.expired() else describe(error)
    return str(said), None


TIMEOUT = 10.0
"""Seconds for the public URL to answer."""


def check(
    *,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
    public_url: Annotated[str | None, option("public_url")] = None,
) -> None:
    """Look whether all is there, and say what to do.

    It reads the settings and tries database, secrets, keys, public URL and handlers: those that
    stand on something outside look whether it is there, and send no event. Nothing is changed,
    and a database that is not there is not made. With WAVESPEED_API_KEY set, the account's
    webhook secret is compared with the one in the settings.

    Example: wavehook check

    Exit codes: 0 all is well, 1 something is not, 2 settings.
    """
    found = reading(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
        public_url=public_url,
    )
    findings: Iterable[Finding]
    if found.faults:
        findings = chain(map(_fault, found.faults), handlers(found.settings))
    else:
        findings = _look(found.settings)
    well = True
    for finding in findings:
        well = well and finding.todo is None
        _tell(finding, as_json=as_json)
    if not well:
        raise typer.Exit(2 if found.faults else 1)


def _fault(fault: str) -> Finding:
    return Finding("settings", fault, "correct it; `wavehook serve --help` names all settings")


def _tell(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        well = finding.todo is None
        json_line(
            {"check": finding.about, "ok": well, "found": finding.found, "todo": finding.todo}
        )
        return
    mark = "ok   " if finding.todo is None else "WRONG"
    typer.echo(f"{mark}  {finding.about:10}  {plain(finding.found)}")
    if finding.todo is not None:
        typer.echo(f"{'':19}-> {plain(finding.todo)}")


def _look(settings: Settings) -> Iterator[Finding]:
    read = str(settings.config) if settings.config else "environment and flags only"
    yield Finding("settings", read)
    yield look_at_database(settings)
    yield from _sources(settings)
    yield _seal(settings)
    yield _public_url(settings)
    yield _reconcile(settings)
    yield from handlers(settings)


def _sources(settings: Settings) -> Iterator[Finding]:
    from receiver.api_client import fetch_secret
    from receiver.source_keys import load_sources
    from submitter.errors import SubmitterError

    fetched: list[str] = []
    failure = None
    if settings.api_key is not None:
        tell_retries()
        try:
            fetched = [fetch_secret(settings)]
        except (SubmitterError, TimeoutError) as error:
            failure = str(error) or "no answer"
            yield Finding(
                "API key",
                f"{settings.base_url}: {failure}",
                "check WAVESPEED_API_KEY and WAVESPEED_BASE_URL; with WAVEHOOK_WAVESPEED_SECRETS "
                "set, `serve` does not need the API",
            )
        else:
            yield Finding("API key", f"{settings.base_url} accepts it")
    faults: list[str] = []
    own = [secret.get_secret_value() for secret in settings.wavespeed_secrets]
    offline = replace(settings, api_key=None)
    found = load_sources(offline, faults, secrets=own or fetched)
    for fault in faults:
        if failure and "it is not set" in fault:
            continue  # it would have come from the API
        yield Finding(
            "secret", fault, "`wavehook secret` prints the account's, where the API key is set"
        )
    if fetched and own and fetched[0] not in own:
        yield Finding(
            "secret",
            "WAVEHOOK_WAVESPEED_SECRETS does not hold the secret that the API gives for this key",
            "add it: `wavehook secret` prints it; the old one may stay beside it",
        )
    for name, trusted in sorted(found.items()):
        count = len(trusted.keys)
        if not faults:
            yield Finding("source", f"{name}: {_verifies(count)}")


def _verifies(keys: int) -> str:
    if not keys:
        return "INSECURE, anybody can post to it; for development only"
    return f"verified with {keys} secret{'s' * (keys != 1)}"


def _seal(settings: Settings) -> Finding:
    from receiver.database import seal_of

    path = settings.key_path
    if not settings.seal_keys and path is not None and not path.exists():
        return Finding("seal keys", f"{path}: not there yet, made at the first start")
    try:
        seal_of(settings)
    except SettingsError as error:
        return Finding("seal keys", "; ".join(error.faults), "correct WAVEHOOK_SEAL_KEYS")
    count = len(settings.seal_keys)
    return Finding("seal keys", f"{count} in WAVEHOOK_SEAL_KEYS" if count else f"{path}: one")


def _public_url(settings: Settings) -> Finding:
    from submitter.api.urls import base_fault

    url = settings.public_url
    if url is None:
        return Finding("public URL", "not set; `wavehook submit` asks for no webhooks")
    fault = base_fault(url)
    if fault:
        return Finding("public URL", f"{url}: {fault}", "correct WAVEHOOK_PUBLIC_URL")
    import httpx

    try:
        answer = httpx.get(f"{url}/livez", timeout=TIMEOUT)
        alive = answer.status_code == 200 and answer.json().get("status") == "alive"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        reason = type(error).__name__
        return Finding(
            "public URL",
            f"{url}: no answer of ours ({reason})",
            "start `wavehook serve`, and let the URL lead to it",
        )
    if not alive:
        return Finding(
            "public URL",
            f"{url}/livez answers {answer.status_code}, and not as Wavehook does",
            "let the URL lead to `wavehook serve`, with all paths below it",
        )
    return Finding("public URL", f"{url} leads to a receiver that is alive")


def _reconcile(settings: Settings) -> Finding:
    from receiver.build import reconciles

    if reconciles(settings):
        found = "on: `serve` asks the API for results whose webhook does not come"
    elif settings.api_key is None:
        found = "off: WAVESPEED_API_KEY is not set, and a webhook that is lost stays lost"
    elif settings.reconcile == "off":
        found = "off by WAVEHOOK_RECONCILE; let a schedule run `wavehook reconcile`"
    else:
        found = "off where handlers run before the reply; let a schedule run `wavehook reconcile`"
    return Finding("reconcile", found)
