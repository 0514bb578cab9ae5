"""The composition root: from settings to parts. The only module that knows every concrete part."""

from __future__ import annotations

import asyncio
import os
import secrets as _secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import structlog
from starlette.applications import Starlette

from receiver.config import Settings, read
from receiver.dispatch import Dispatcher
from receiver.errors import SettingsError
from receiver.handlers.base import Installed
from receiver.intake import Intake, Trusted
from receiver.sources.base import WAVESPEED, Source
from receiver.sources.header_hmac import HeaderHmac
from receiver.sources.insecure import Insecure
from receiver.sources.standard import StandardWebhooks
from receiver.sources.wavespeed import WaveSpeed
from receiver.stores.base import Store
from receiver.stores.sqlite import SQLiteStore
from receiver.telemetry import Hook
from receiver.telemetry.log import configure, log_hook, logger
from receiver.telemetry.metrics import Metrics
from receiver.web.app import create_app
from submitter.errors import BadSettings, SubmitterError
from submitter.seal import Seal, load_or_create_key

if TYPE_CHECKING:
    from receiver.config import SourceSettings

FETCH_LIMIT = 20.0
"""Seconds that the API has to give the webhook secret at a start."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What runs handlers: all that `wavehook worker` and `wavehook drain` need."""

    settings: Settings
    store: Store
    handlers: tuple[Installed, ...]
    dispatcher: Dispatcher
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Parts(Work):
    """The whole receiver, built and not yet started; the app opens the store."""

    intake: Intake
    app: Starlette


def app(environ: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> Starlette:
    """The receiver's ASGI app, from the environment and `wavehook.toml`, with its log.

    A log that the process has set up itself, with structlog, stays as it is.

    Raises:
        SettingsError: with every fault.
    """
    reading = read(os.environ if environ is None else environ, cwd=cwd or Path.cwd())
    if not structlog.is_configured():
        configure(level=reading.settings.log_level)
    return build(reading.settings, faults=reading.faults).app


def build(
    settings: Settings,
    *,
    faults: Sequence[str] = (),
    store: Store | None = None,
    secrets: Sequence[str] = (),
    hooks: Sequence[Hook] = (log_hook,),
) -> Parts:
    """Build the receiver.

    Args:
        settings: as `receiver.config` read them.
        faults: what it found wrong; told together with what is found here.
        store: instead of the one in the settings.
        secrets: of WaveSpeedAI, instead of those in the settings.
        hooks: told what happens, beside the metrics.

    Raises:
        SettingsError: with every fault; also where the webhook secret cannot be fetched.
    """
    found = list(faults)
    store = store or open_store(settings, found)
    handlers = _collect(found, lambda: _install(settings)) or ()
    sources = sources_of(settings, found, secrets=secrets)
    # A start that fails anyhow leaves no new key file behind.
    wanted = not found or settings.seal_keys
    seal = _collect(found, lambda: seal_of(settings)) if wanted else None
    if found:
        raise SettingsError(found)
    for name, trusted in sources.items():
        if isinstance(trusted.source, Insecure):
            logger().warning(
                "verification.omitted", source=name, warning="anybody can post events to it"
            )
    work = _work(settings, store, handlers, hooks)
    intake = Intake(sources, [handler.route for handler in handlers], store, seal)
    web = create_app(
        intake=intake,
        store=store,
        dispatcher=work.dispatcher,
        hooks=(*hooks, work.metrics),
        metrics=work.metrics,
        max_body=settings.max_body,
        body_deadline=settings.body_deadline,
        dispatch=settings.dispatch,
        inline_deadline=settings.inline_deadline,
        grace=settings.grace,
    )
    return Parts(
        settings, store, work.handlers, work.dispatcher, work.metrics, intake=intake, app=web
    )


def worker(
    settings: Settings,
    *,
    faults: Sequence[str] = (),
    store: Store | None = None,
    hooks: Sequence[Hook] = (log_hook,),
) -> Work:
    """Build what runs handlers, without the receiving half and its secrets.

    Raises:
        SettingsError: with every fault.
    """
    found = list(faults)
    store = store or open_store(settings, found)
    handlers = _collect(found, lambda: _install(settings)) or ()
    if found:
        raise SettingsError(found)
    return _work(settings, store, handlers, hooks)


def open_store(settings: Settings, faults: list[str] | None = None) -> Store:
    """The store of the settings' URL, not opened yet.

    Args:
        settings: with the URL.
        faults: gets a sentence where the database cannot be there.

    Raises:
        SettingsError: instead, where no `faults` are given.
    """
    path = settings.database_path
    if not path.parent.is_dir():
        fault = (
            f"WAVEHOOK_DATABASE = {settings.database!r}: expected the folder {path.parent} to exist"
        )
        if faults is None:
            raise SettingsError([fault])
        faults.append(fault)
    return SQLiteStore(path)


def seal_of(settings: Settings) -> Seal:
    """The seal of the settings' keys, or of the key file beside the database.

    Raises:
        SettingsError: a key is none, or the file cannot be read or made.
    """
    try:
        return Seal(seal_keys(settings))
    except BadSettings as error:
        raise SettingsError([str(error)]) from None


def seal_keys(settings: Settings) -> tuple[str, ...]:
    """The keys themselves, newest first.

    Raises:
        BadSettings: the key file cannot be read or made.
    """
    keys = tuple(key.get_secret_value() for key in settings.seal_keys)
    return keys or (load_or_create_key(settings.key_path),)


def sources_of(
    settings: Settings, faults: list[str], *, secrets: Sequence[str] = ()
) -> dict[str, Trusted]:
    """Every source with its keys (F15).

    Args:
        settings: sources, secrets and the API key.
        faults: gets a sentence for each source that cannot verify anything. The webhook secret is
            fetched from the API only where there is none up to then.
        secrets: of WaveSpeedAI, instead of those in the settings.
    """
    found: dict[str, Trusted] = {}
    for name, section in settings.sources.items():
        if name != WAVESPEED:
            source = _source(name, section)
            keys = [] if isinstance(source, Insecure) else _plain(section)
            found[name] = _trusted(source, f"sources.{name}.secrets", keys, faults)
    given = secrets or [key.get_secret_value() for key in settings.wavespeed_secrets]
    label = "WAVEHOOK_WAVESPEED_SECRETS"
    if not given and WAVESPEED in settings.sources:
        given, label = _plain(settings.sources[WAVESPEED]), f"sources.{WAVESPEED}.secrets"
    if not given and settings.api_key is not None:
        given, label = _fetched(settings, faults), "WAVESPEED_API_KEY"
        if not given:
            return found
    if given:
        found[WAVESPEED] = _trusted(WaveSpeed(), label, given, faults)
    elif (WAVESPEED in settings.sources or not found) and not _told_of_secrets(faults):
        faults.append(
            "WAVEHOOK_WAVESPEED_SECRETS: it is not set, and without a secret nothing can be "
            "verified; expected one or more whsec_…, or WAVESPEED_API_KEY to fetch it with, or "
            "a [sources.NAME] section"
        )
    return found


def fetch_secret(settings: Settings) -> str:
    """Ask the API for the account's webhook secret; works inside of a running event loop too.

    Raises:
        SubmitterError: the API refused, or did not answer.
    """
    # The receiving path imports no HTTP client until it needs one.
    from submitter.client import WaveSpeed as Client

    key = settings.api_key.get_secret_value() if settings.api_key else None

    async def fetch() -> str:
        async with Client(key, settings.base_url) as client:
            return await asyncio.wait_for(client.webhook_secret(), FETCH_LIMIT)

    with ThreadPoolExecutor(1, thread_name_prefix="wavehook-secret") as thread:
        return thread.submit(asyncio.run, fetch()).result()


def _fetched(settings: Settings, faults: list[str]) -> list[str]:
    if faults:
        return []  # a start that fails anyhow need not wait for the network
    try:
        return [fetch_secret(settings)]
    except (SubmitterError, TimeoutError) as error:
        reason = str(error) or f"no answer in {FETCH_LIMIT:g} s"
        faults.append(
            f"WAVESPEED_API_KEY = ***: the webhook secret could not be fetched from "
            f"{settings.base_url} ({reason}); expected the API to give it. With "
            "WAVEHOOK_WAVESPEED_SECRETS set, a start does not need the API"
        )
        return []


def _install(settings: Settings) -> Sequence[Installed]:
    if not (settings.handlers or settings.modules):
        return ()
    # It brings pydantic and the entry points of all that is installed.
    from receiver.handlers.loading import install

    return install(settings.handlers, settings.modules)


def _source(name: str, section: SourceSettings) -> Source[Any]:
    match section.use:
        case "wavespeed":
            return WaveSpeed(name)
        case "standard":
            return StandardWebhooks(name)
        case "header_hmac":
            given = {"header": section.header, "prefix": section.prefix}
            given["encoding"] = section.encoding
            return HeaderHmac(name, **{k: v for k, v in given.items() if v is not None})
        case "insecure":
            return Insecure(name)
        case unknown:
            assert_never(unknown)


def _trusted(source: Source[Any], label: str, secrets: Sequence[str], faults: list[str]) -> Trusted:
    keys = []
    for secret in secrets:
        try:
            keys.append(source.key(secret))
        except ValueError as error:
            faults.append(f"{label} = ***: {error}")
    return Trusted(source, tuple(keys))


def _plain(section: SourceSettings) -> list[str]:
    return [secret.get_secret_value() for secret in section.secrets]


def _told_of_secrets(faults: Sequence[str]) -> bool:
    """Whether the cause of a missing secret may be among the faults already."""
    words = ("SECRETS", "secrets", "API_KEY", "api_key", "sources.", ".toml", "--config", "_CONFIG")
    return any(word in fault for fault in faults for word in words)


def _collect(faults: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except SettingsError as error:
        faults.extend(error.faults)
        return None


def _work(
    settings: Settings,
    store: Store,
    handlers: Sequence[Installed],
    hooks: Sequence[Hook],
) -> Work:
    metrics = Metrics()
    dispatcher = Dispatcher(
        store,
        handlers,
        owner=f"{socket.gethostname()}:{os.getpid()}:{_secrets.token_hex(4)}",
        hooks=(*hooks, metrics),
        lease=settings.lease,
    )
    return Work(settings, store, tuple(handlers), dispatcher, metrics)
