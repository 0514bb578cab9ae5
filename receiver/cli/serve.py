"""`wavehook serve`."""

from __future__ import annotations

from receiver.cli.options import DATABASE, Flags, setting_flags


@setting_flags(
    "host",
    "port",
    *DATABASE,
    "modules",
    "dispatch",
    "public_url",
    "base_url",
    "max_body",
    "body_deadline",
    "inline_deadline",
    "grace",
    "lease",
    "reconcile",
    "overdue",
    "log_level",
)
def serve(*, flags: Flags) -> None:
    """Receive webhooks: verify each, store it once, run handlers.

    Senders post to /webhooks/SOURCE, WaveSpeedAI to /webhooks/wavespeed. If WAVESPEED_API_KEY is
    set, results whose webhook does not arrive are fetched from the API.

    Secrets have no flags: they come from the environment or the file. SIGTERM and Ctrl-C stop new
    requests, let running handlers finish within --grace, release the rest, and exit 0.

    Example: WAVEHOOK_WAVESPEED_SECRETS=whsec_… wavehook serve --port 9000 --handlers my.handlers

    Exit codes: 0 stopped by a signal, 1 the port or the database is not available, 2 settings.
    """
    found = flags.reading()
    from receiver.build import build
    from receiver.cli.server import Server, listen

    parts = build(found.settings, faults=found.faults)
    with listen(parts.settings.host, parts.settings.port) as listener:
        Server(parts, listener).serve_until_signal()
