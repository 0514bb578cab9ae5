"""`wavehook serve`."""

from __future__ import annotations

from typing import Annotated

from receiver.cli.options import (
    Config,
    Database,
    Grace,
    Lease,
    LogLevel,
    Modules,
    Overdue,
    Pooler,
    Schema,
    option,
    reading,
)


def serve(
    *,
    host: Annotated[str | None, option("host")] = None,
    port: Annotated[str | None, option("port")] = None,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
    dispatch: Annotated[str | None, option("dispatch")] = None,
    public_url: Annotated[str | None, option("public_url")] = None,
    base_url: Annotated[str | None, option("base_url")] = None,
    max_body: Annotated[str | None, option("max_body")] = None,
    body_deadline: Annotated[str | None, option("body_deadline")] = None,
    inline_deadline: Annotated[str | None, option("inline_deadline")] = None,
    grace: Grace = None,
    lease: Lease = None,
    reconcile: Annotated[str | None, option("reconcile")] = None,
    overdue: Overdue = None,
    log_level: LogLevel = None,
) -> None:
    """Receive webhooks: verify, store once, run handlers.

    With WAVESPEED_API_KEY set, results whose webhook does not come are asked for.
    Senders post to /webhooks/SOURCE, WaveSpeedAI to /webhooks/wavespeed. Secrets come from the
    environment or the file, never from flags. SIGTERM and Ctrl-C stop accepting, let running
    handlers end within --grace, give back the rest, and exit 0.

    Example: WAVEHOOK_WAVESPEED_SECRETS=whsec_… wavehook serve --port 9000 --handlers my.handlers

    Exit codes: 0 stopped by a signal, 1 the port or the database cannot be had, 2 settings.
    """
    found = reading(
        host=host,
        port=port,
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
        dispatch=dispatch,
        public_url=public_url,
        base_url=base_url,
        max_body=max_body,
        body_deadline=body_deadline,
        inline_deadline=inline_deadline,
        grace=grace,
        lease=lease,
        reconcile=reconcile,
        overdue=overdue,
        log_level=log_level,
    )
    from receiver.build import build
    from receiver.cli.server import Server, listen

    parts = build(found.settings, faults=found.faults)
    with listen(parts.settings.host, parts.settings.port) as listener:
        Server(parts, listener).serve_until_signal()
