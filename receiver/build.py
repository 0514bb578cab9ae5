"""Composition root: builds all parts from the settings; only this module knows them all."""

from __future__ import annotations

import os
import secrets as _secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from receiver.api_client import ResultFetcher, make_api_client
from receiver.config import Settings, read
from receiver.database import open_store, settings_ledger, settings_seal
from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import SettingsError
from receiver.handlers.base import Installed
from receiver.intake import Intake
from receiver.results.drain_round import DrainRound
from receiver.results.ledger_sync import LedgerSync
from receiver.results.long_poll import ResultWaiters
from receiver.results.reconcile import InboxGateway, background_reconciler
from receiver.source_keys import load_sources
from receiver.sources.insecure import Insecure
from receiver.stores.base import Store
from receiver.telemetry import Hook
from receiver.telemetry.log import configure, log_hook, logger
from receiver.telemetry.metrics import Metrics
from receiver.web.api import drain_routes, result_routes
from receiver.web.app import create_app
from receiver.web.lifecycle import Lifecycle, Service
from submitter.ledger.base import Ledger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts that run handlers, as `wavehook worker` and `wavehook drain` need them."""

    settings: Settings
    store: Store
    handlers: tuple[Installed, ...]
    dispatcher: Dispatcher
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class ReceiverParts(WorkerParts):
    """The whole receiver, not started yet; the app opens store and ledger."""

    intake: Intake
    ledger: Ledger
    results: ResultWaiters
    lifecycle: Lifecycle
    app: Starlette


def app(environ: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> Starlette:
    """Build the receiver's ASGI app from the environment and `wavehook.toml`, and set up its log.

    A structlog configuration that the process made before is kept.

    Raises:
        SettingsError: all faults of the settings.
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
    ledger: Ledger | None = None,
    secrets: Sequence[str] = (),
    hooks: Sequence[Hook] = (log_hook,),
) -> ReceiverParts:
    """Build the receiver.

    Args:
        settings: from `receiver.config`.
        faults: faults that reading the settings found; raised together with those found here.
        store: in place of the one in the settings.
        ledger: in place of the one in the settings' database.
        secrets: WaveSpeedAI's webhook secrets, in place of those in the settings.
        hooks: called for telemetry events, beside the metrics.

    Raises:
        SettingsError: all faults; also if the webhook secret cannot be fetched.
    """
    found = [*faults, *_freezing_fault(settings)]
    listen = settings.dispatch == "background"
    store = store or _collect(found, lambda: open_store(settings, listen=listen))
    handlers = _collect(found, lambda: _install(settings)) or ()
    sources = load_sources(settings, found, secrets=secrets)
    # A start that fails anyhow must not leave a new key file behind.
    makes_no_file = settings.seal_keys or settings.key_path is None
    seal = _collect(found, lambda: settings_seal(settings)) if makes_no_file or not found else None
    if found or store is None:
        raise SettingsError(found)
    for name, trusted in sources.items():
        if isinstance(trusted.source, Insecure):
            logger().warning(
                "verification.omitted", source=name, warning="anybody can post events to it"
            )
    work = _work(settings, store, handlers, hooks)
    hooks = (*hooks, work.metrics)
    ledger = ledger or settings_ledger(settings)
    connect = partial(make_api_client, settings)
    fetcher = ResultFetcher(connect, hooks=hooks) if settings.api_key else None
    results = ResultWaiters(store)
    ledger_sync = LedgerSync(store, ledger, results, hooks=hooks)
    intake = Intake(
        sources,
        [handler.route for handler in handlers],
        store,
        seal,
        ledger=ledger,
        fetch=fetcher.fetch if fetcher else None,
        stored=[ledger_sync.stored],
    )
    gateway = InboxGateway(intake, store, hooks=hooks)
    long_running: list[Service] = []
    if reconciles(settings):
        long_running.append(background_reconciler(connect, ledger, gateway, settings.overdue))
    lifecycle = Lifecycle(
        store,
        work.dispatcher,
        settings.grace,
        background=settings.dispatch == "background",
        ledger=ledger,
        services=(ledger_sync, fetcher) if fetcher else (ledger_sync,),
        long_running=long_running,
        freezes=_freezes(settings),
    )
    routes: list[BaseRoute] = []
    if settings.admin_token is not None:
        token = settings.admin_token.get_secret_value()
        drain = _drain_round(work, ledger, gateway).run
        routes += result_routes(results, token, lifecycle, hooks=hooks)
        routes += drain_routes(drain, token, lifecycle, flush_ledger=ledger_sync.flush, hooks=hooks)
    web = create_app(
        intake=intake,
        store=store,
        lifecycle=lifecycle,
        dispatcher=work.dispatcher,
        ledger=ledger,
        hooks=hooks,
        metrics=work.metrics,
        max_body=settings.max_body,
        body_deadline=settings.body_deadline,
        dispatch=settings.dispatch,
        inline_deadline=settings.inline_deadline,
        flush_ledger=ledger_sync.flush,
        routes=routes,
    )
    return ReceiverParts(
        settings,
        store,
        work.handlers,
        work.dispatcher,
        work.metrics,
        intake=intake,
        ledger=ledger,
        results=results,
        lifecycle=lifecycle,
        app=web,
    )


def reconciles(settings: Settings) -> bool:
    """True if a running receiver fetches results whose webhook did not arrive.

    False if the process may be frozen after a response: a schedule reconciles then.
    """
    return _may_reconcile(settings) and not _freezes(settings)


def worker(
    settings: Settings,
    *,
    faults: Sequence[str] = (),
    store: Store | None = None,
    listen: bool = True,
    hooks: Sequence[Hook] = (log_hook,),
) -> WorkerParts:
    """Build the parts that run handlers, without the receiving half and its secrets.

    Args:
        settings: from `receiver.config`.
        faults: as for `build`.
        store: as for `build`.
        listen: be notified of new events; false for a process that only drains.
        hooks: as for `build`.

    Raises:
        SettingsError: all faults of the settings.
    """
    found = list(faults)
    store = store or _collect(found, lambda: open_store(settings, listen=listen))
    handlers = _collect(found, lambda: _install(settings)) or ()
    if found or store is None:
        raise SettingsError(found)
    return _work(settings, store, handlers, hooks)


def drain_round(
    settings: Settings, *, faults: Sequence[str] = (), hooks: Sequence[Hook] = (log_hook,)
) -> tuple[DrainRound, Lifecycle]:
    """Build a round for a schedule, and the lifecycle that opens its parts before and stops them.

    Raises:
        SettingsError: all faults of the settings.
    """
    work = worker(settings, faults=faults, listen=False, hooks=hooks)
    ledger = settings_ledger(settings)
    intake = Intake({}, [handler.route for handler in work.handlers], work.store)
    gateway = InboxGateway(intake, work.store, hooks=(*hooks, work.metrics))
    lifecycle = Lifecycle(
        work.store, work.dispatcher, settings.grace, background=False, ledger=ledger
    )
    return _drain_round(work, ledger, gateway), lifecycle


def inbox_gateway(
    settings: Settings, store: Store, hooks: Sequence[Hook] = (log_hook,)
) -> InboxGateway:
    """Build the gateway for `wavehook reconcile`: with the settings' handlers, without sources.

    Raises:
        SettingsError: a handler's settings are faulty.
    """
    routes = [handler.route for handler in _install(settings)]
    return InboxGateway(Intake({}, routes, store), store, hooks=hooks)


def _may_reconcile(settings: Settings) -> bool:
    return settings.reconcile == "on" and settings.api_key is not None


def _freezes(settings: Settings) -> bool:
    """True if the process may be frozen after a response, so that no work may be left for then."""
    platform = settings.platform
    return settings.dispatch == "inline" or (platform is not None and platform.freezes)


def _freezing_fault(settings: Settings) -> Sequence[str]:
    """The fault of background handlers that a platform would freeze in the middle."""
    platform = settings.platform
    if platform is None or not platform.freezes or settings.dispatch != "background":
        return ()
    fault = (
        f"WAVEHOOK_DISPATCH = 'background': {platform.name} freezes a process after its response; "
        "expected inline, or external with a schedule or a worker elsewhere"
    )
    return [fault]


def _drain_round(work: WorkerParts, ledger: Ledger, gateway: InboxGateway) -> DrainRound:
    settings = work.settings
    return DrainRound(
        work.store,
        work.dispatcher,
        [handler.name for handler in work.handlers],
        ledger=ledger,
        gateway=gateway,
        connect=partial(make_api_client, settings) if _may_reconcile(settings) else None,
        overdue=settings.overdue,
    )


def _install(settings: Settings) -> Sequence[Installed]:
    if not (settings.handlers or settings.modules):
        return ()
    # Imports pydantic, and the entry points of every installed distribution.
    from receiver.handlers.loading import install

    return install(settings.handlers, settings.modules)


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
) -> WorkerParts:
    metrics = Metrics()
    dispatcher = Dispatcher(
        store,
        handlers,
        owner=f"{socket.gethostname()}:{os.getpid()}:{_secrets.token_hex(4)}",
        hooks=(*hooks, metrics),
        lease=settings.lease,
    )
    return WorkerParts(settings, store, tuple(handlers), dispatcher, metrics)
