"""`wavehook check`: tests everything that `serve` needs, and says how to repair what fails.

Nothing is created or changed, and no event is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import typer

from receiver.cli.options import DATABASE, Flags, JsonLines, setting_flags
from receiver.database import open_store
from receiver.errors import SchemaMismatch, SettingsError, StoreError, StoreRefused
from submitter.cli.run import json_line, plain, print_retries

if TYPE_CHECKING:
    from receiver.config import Settings
    from receiver.handlers.base import Installed


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check.

    Attributes:
        subject: what was checked, in a word or two.
        found: what the check found.
        todo: how to repair it; None if all is well.
    """

    subject: str
    found: str
    todo: str | None = None


OTHER_DATABASE = "name another in WAVEHOOK_DATABASE"

CONNECTIONS_OF_SERVE = 8
"""Connections of one `serve`: of the store, one that listens, and two of the ledger."""

HANDLER_TIMEOUT_S = 10.0
"""Seconds for one handler to check its service."""

PUBLIC_URL_TIMEOUT_S = 10.0
"""Seconds for the public URL to answer."""


def check_database(settings: Settings) -> CheckResult:
    """Check the database; one that does not exist is not created."""
    path = settings.database_path
    try:
        return asyncio.run(_server(settings)) if path is None else _file(settings, path)
    except SchemaMismatch as error:
        return CheckResult("database", str(error), f"it was not changed; {OTHER_DATABASE}")
    except SettingsError as error:
        return CheckResult("database", "; ".join(error.faults), "pip install 'wavehook[postgres]'")
    except StoreRefused as error:
        return CheckResult("database", error.reason, error.todo)
    except StoreError as error:
        todo = "make sure that the file is intact and not locked, and the disk is not full"
        if path is None:
            todo = "make sure that the server runs and this machine can reach it"
        return CheckResult("database", str(error), f"{todo}, or {OTHER_DATABASE}")


def _file(settings: Settings, path: Path) -> CheckResult:
    if not path.parent.is_dir():
        return CheckResult(
            "database", f"{path}: its folder does not exist", f"create the folder {path.parent}"
        )
    if not path.exists():
        try:
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            return CheckResult(
                "database",
                f"{path}: its folder is not writable ({error.strerror})",
                f"let this user write there, or {OTHER_DATABASE}",
            )
        return CheckResult("database", f"{path}: does not exist yet; the first start creates it")
    return CheckResult("database", f"{path}: {asyncio.run(_queue(settings))}")


async def _server(settings: Settings) -> CheckResult:
    from receiver.stores.postgres import probe

    where = settings.database_label
    found = await probe(
        settings.database, settings.database_schema, pooler=settings.database_pooler
    )
    if found.version == 0 and not found.may_create:
        return CheckResult(
            "database",
            f"{where}: does not exist yet, and this user may not create it",
            "grant CREATE on the database to this user, or let its owner run `wavehook migrate`",
        )
    if found.version == 0:
        return CheckResult("database", f"{where}: does not exist yet; the first start creates it")
    if found.version < found.newest:
        older = f"version {found.version}; the next start migrates it to {found.newest}"
        return CheckResult("database", f"{where}: {older}")
    free = max(found.limit - found.used, 0)
    words = f"{where}: {await _queue(settings)}; version {found.version}; "
    words += f"{free} of {found.limit} connections free"
    todo = "raise max_connections of the server, or put a pooler in front of it"
    return CheckResult("database", words, todo if free < CONNECTIONS_OF_SERVE else None)


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
    return f"ready; {waiting} dispatches waiting, {dead} dead"


def handlers(settings: Settings) -> Iterator[CheckResult]:
    """Create the handlers as a start does, and let all check their services concurrently."""
    from receiver.handlers.loading import install

    try:
        installed = install(settings.handlers, settings.modules)
    except SettingsError as error:
        for fault in error.faults:
            yield CheckResult("handlers", fault, "correct the section, or the module")
        return
    if not installed:
        yield CheckResult("handlers", "none: events are only stored")
    yield from asyncio.run(_check_handlers(installed))


async def _check_handlers(installed: list[Installed]) -> list[CheckResult]:
    named = sorted(installed, key=lambda one: one.name)
    return list(await asyncio.gather(*map(_check_handler, named)))


async def _check_handler(one: Installed) -> CheckResult:
    from receiver.dispatch.dispatcher import CLOSE_TIMEOUT_S

    found, wrong = "needs no service", None
    if one.check is not None:
        found, wrong = await _outcome(one.check, HANDLER_TIMEOUT_S)
    if one.close is not None:
        _, unclosed = await _outcome(one.close, CLOSE_TIMEOUT_S)
        wrong = wrong or (f"it does not close ({unclosed})" if unclosed else None)
    text = one.masked(f"{one.name}: {wrong or found}")
    todo = f"correct [handlers.{one.name}], or repair the service that it uses" if wrong else None
    return CheckResult("handler", text, todo)


async def _outcome(call: Callable[[], Awaitable[object]], limit: float) -> tuple[str, str | None]:
    """The result of a handler's own code, and what went wrong; it has `limit` seconds."""
    from receiver.handlers.retry import describe

    within = asyncio.timeout(limit)
    try:
        async with within:
            said = await call()
    except Exception as error:  # noqa: BLE001 - a stranger's handler may raise anything
        return "", f"no answer within {limit:g} s" if within.expired() else describe(error)
    return str(said), None


@setting_flags(*DATABASE, "modules", "public_url")
def check(*, as_json: JsonLines = False, flags: Flags) -> None:
    """Check the set-up, and say how to repair what fails.

    Checks settings, database, secrets, keys, public URL and handlers. A handler that uses an
    outside service checks that it is reachable, and sends no event. Nothing is changed, and a
    database that does not exist is not created. If WAVESPEED_API_KEY is set, the account's webhook
    secret is compared with the one in the settings.

    Example: wavehook check

    Exit codes: 0 all is well, 1 a check failed, 2 settings.
    """
    found = flags.reading()
    results: Iterable[CheckResult]
    if found.faults:
        results = chain(map(_fault, found.faults), handlers(found.settings))
    else:
        results = _run_checks(found.settings)
    all_well = True
    for result in results:
        all_well = all_well and result.todo is None
        _print(result, as_json=as_json)
    if not all_well:
        raise typer.Exit(2 if found.faults else 1)


def _fault(fault: str) -> CheckResult:
    return CheckResult("settings", fault, "correct it; `wavehook serve --help` lists the settings")


def _print(result: CheckResult, *, as_json: bool) -> None:
    if as_json:
        well = result.todo is None
        json_line({"check": result.subject, "ok": well, "found": result.found, "todo": result.todo})
        return
    mark = "ok   " if result.todo is None else "WRONG"
    typer.echo(f"{mark}  {result.subject:10}  {plain(result.found)}")
    if result.todo is not None:
        typer.echo(f"{'':19}-> {plain(result.todo)}")


def _run_checks(settings: Settings) -> Iterator[CheckResult]:
    yield CheckResult("settings", str(settings.config or "environment and flags only"))
    yield check_database(settings)
    yield from _sources(settings)
    yield _seal(settings)
    yield _public_url(settings)
    yield _reconcile(settings)
    yield from handlers(settings)


def _sources(settings: Settings) -> Iterator[CheckResult]:
    from receiver.api_client import fetch_secret
    from receiver.source_keys import load_sources
    from submitter.errors import SubmitterError

    fetched: list[str] = []
    failure = None
    if settings.api_key is not None:
        print_retries()
        try:
            fetched = [fetch_secret(settings)]
        except (SubmitterError, TimeoutError) as error:
            failure = str(error) or "no answer"
            yield CheckResult(
                "API key",
                f"{settings.base_url}: {failure}",
                "check WAVESPEED_API_KEY and WAVESPEED_BASE_URL; with WAVEHOOK_WAVESPEED_SECRETS "
                "set, `serve` does not need the API",
            )
        else:
            yield CheckResult("API key", f"{settings.base_url} accepts it")
    faults: list[str] = []
    own = [secret.get_secret_value() for secret in settings.wavespeed_secrets]
    offline = replace(settings, api_key=None)
    found = load_sources(offline, faults, secrets=own or fetched)
    for fault in faults:
        if failure and "it is not set" in fault:
            continue  # the API would have given it
        yield CheckResult(
            "secret", fault, "`wavehook secret` prints the account's secret, if the API key is set"
        )
    if fetched and own and fetched[0] not in own:
        yield CheckResult(
            "secret",
            "WAVEHOOK_WAVESPEED_SECRETS does not hold the secret that the API gives for this key",
            "add it: `wavehook secret` prints it; the old one may stay",
        )
    for name, trusted in sorted(found.items()):
        count = len(trusted.keys)
        if not faults:
            yield CheckResult("source", f"{name}: {_verifies(count)}")


def _verifies(keys: int) -> str:
    if not keys:
        return "INSECURE, anybody can post to it; for development only"
    return f"verified with {keys} secret{'s' * (keys != 1)}"


def _seal(settings: Settings) -> CheckResult:
    from receiver.database import settings_seal

    path = settings.key_path
    if not settings.seal_keys and path is not None and not path.exists():
        return CheckResult("seal keys", f"{path}: does not exist yet; the first start creates it")
    try:
        settings_seal(settings)
    except SettingsError as error:
        return CheckResult("seal keys", "; ".join(error.faults), "correct WAVEHOOK_SEAL_KEYS")
    count = len(settings.seal_keys)
    return CheckResult(
        "seal keys", f"{count} in WAVEHOOK_SEAL_KEYS" if count else f"{path}: one key"
    )


def _public_url(settings: Settings) -> CheckResult:
    from submitter.api.urls import base_fault

    url = settings.public_url
    if url is None:
        return CheckResult("public URL", "not set; `wavehook submit` asks for no webhooks")
    fault = base_fault(url)
    if fault:
        return CheckResult("public URL", f"{url}: {fault}", "correct WAVEHOOK_PUBLIC_URL")
    import httpx

    try:
        answer = httpx.get(f"{url}/livez", timeout=PUBLIC_URL_TIMEOUT_S)
        alive = answer.status_code == 200 and answer.json().get("status") == "alive"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        reason = type(error).__name__
        return CheckResult(
            "public URL",
            f"{url}: no answer from a receiver ({reason})",
            "start `wavehook serve`, and route the URL to it",
        )
    if not alive:
        return CheckResult(
            "public URL",
            f"{url}/livez answers {answer.status_code}, but not as a receiver does",
            "route the URL to `wavehook serve`, with all paths below it",
        )
    return CheckResult("public URL", f"{url} reaches a running receiver")


def _reconcile(settings: Settings) -> CheckResult:
    from receiver.build import reconciles

    if reconciles(settings):
        found = "on: `serve` asks the API for results whose webhook does not arrive"
    elif settings.api_key is None:
        found = "off: WAVESPEED_API_KEY is not set, so a lost webhook loses its result"
    elif settings.reconcile == "off":
        found = "off by WAVEHOOK_RECONCILE; run `wavehook reconcile` on a schedule"
    else:
        found = "off with inline dispatch; run `wavehook reconcile` on a schedule"
    return CheckResult("reconcile", found)
