"""The command `wavehook demo`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import Flags
from receiver.config import Settings, load
from receiver.telemetry.log import configure

if TYPE_CHECKING:
    from receiver.demo.story import DemoInbox, Scenario
    from receiver.demo.view import View

DEFAULT_FILE = "wavehook-demo.db"

_DATABASE_VARIABLES = ("WAVEHOOK_DATABASE", "WAVEHOOK_DATABASE_POOLER")


def demo(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="File to keep the inbox in; implies --keep."),
    ] = None,
    *,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help=f"Keep the inbox: in {DEFAULT_FILE}, or in its schema on PostgreSQL.",
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", help="Settings whose handlers get the demo's events too."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
    ] = False,
) -> None:
    """Run the whole loop on this machine, in a few seconds.

    It needs no account and costs nothing. It starts a simulated WaveSpeedAI API and a receiver on
    free ports of this machine, submits ten image-to-video tasks, and handles their webhooks.

    Things go wrong on purpose: webhooks arrive twice, out of order, and before the response to the
    submit; one webhook is forged; one worker is killed; one handler fails at first. In the end,
    each task must have been handled exactly once.

    The inbox is a temporary file. If WAVEHOOK_DATABASE is a PostgreSQL database, it is a new schema
    there, which is removed afterwards.

    With --config, the handlers of that file and of its modules run beside the demo's own. They
    really write, post and send. The videos are on 127.0.0.1: a handler that downloads them needs
    this address in its `allow`.

    Example: wavehook demo --keep

    Exit codes: 0 all ten tasks were handled exactly once, 1 they were not, 2 wrong usage or
    settings.
    """
    user_settings = Flags(config=config).settings() if config else None
    configure(level="error")
    from receiver.demo.story import Scenario

    scenario = context.find_object(Scenario) or Scenario()
    asyncio.run(
        _play(path, keep=keep, user_settings=user_settings, as_json=as_json, scenario=scenario)
    )


async def _play(
    path: str | None,
    *,
    keep: bool,
    user_settings: Settings | None,
    as_json: bool,
    scenario: Scenario,
) -> None:
    from receiver.demo.story import run
    from receiver.demo.view import summary_text

    async with demo_inbox(path, keep=keep) as inbox:
        with _view(as_json=as_json) as view:
            summary = await run(view, inbox, user_settings, scenario)
    typer.echo(json.dumps(asdict(summary)) if as_json else f"\n{summary_text(summary)}")
    if not summary.exactly_once:
        raise typer.Exit(1)


def _view(*, as_json: bool) -> View:
    from rich.console import Console

    from receiver.demo.view import Lines, LiveTable, View

    if as_json:
        return View()
    return LiveTable(Console()) if sys.stdout.isatty() else Lines(typer.echo)


@asynccontextmanager
async def demo_inbox(path: str | None, *, keep: bool) -> AsyncIterator[DemoInbox]:
    """Choose the database of one demo, and remove it afterwards unless it is kept.

    Args:
        path: a new file; implies `keep`.
        keep: keep the database.

    Raises:
        SettingsError: the environment's database setting is not valid.
    """
    from receiver.demo.story import file_inbox

    given = _database_settings()
    if path is None and given.database_path is None:
        async with _schema_inbox(given, keep=keep) as inbox:
            yield inbox
    elif path is None and not keep:
        with tempfile.TemporaryDirectory(prefix="wavehook-demo-") as folder:
            yield file_inbox(Path(folder) / "inbox.db")
    else:
        yield file_inbox(_new_file(path or DEFAULT_FILE), kept=True)


def _database_settings() -> Settings:
    """The environment's database and nothing else: no other setting changes the demo."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WAVEHOOK_")}
    given = {name: os.environ[name] for name in _DATABASE_VARIABLES if os.environ.get(name)}
    return load({**others, **given, "WAVEHOOK_CONFIG": os.devnull}, cwd=Path.cwd())


@asynccontextmanager
async def _schema_inbox(given: Settings, *, keep: bool) -> AsyncIterator[DemoInbox]:
    from receiver.demo.story import DemoInbox

    schema = f"wavehook_demo_{secrets.token_hex(4)}"
    try:
        yield DemoInbox(replace(given, database_schema=schema), keep)
    finally:
        if not keep:
            from receiver.stores.postgres import remove_schema

            await remove_schema(given.database, schema, pooler=given.database_pooler)


def _new_file(name: str) -> Path:
    path = Path(name).resolve()
    if path.exists():
        raise typer.BadParameter(f"{path} exists; choose another file", param_hint="PATH")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"the folder {path.parent} does not exist", param_hint="PATH")
    return path
