"""`wavehook worker` and `wavehook drain`: run handlers without receiving anything."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import (
    AsJson,
    Config,
    Database,
    Grace,
    Lease,
    LogLevel,
    Modules,
    Pooler,
    Schema,
    reading,
)
from receiver.cli.startup import collect_rarely, run
from receiver.errors import WavehookError
from submitter.cli.run import json_line
from submitter.units import seconds

if TYPE_CHECKING:
    from receiver.build import WorkerParts


def worker(
    *,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
    grace: Grace = None,
    lease: Lease = None,
    log_level: LogLevel = None,
) -> None:
    """Run handlers until a signal comes; receive nothing.

    For `serve --dispatch external`, or for more hands on the same database. Any number of workers
    and servers share one database; each dispatch is run by one of them.

    Example: wavehook worker --database sqlite:////var/lib/wavehook/wavehook.db

    Exit codes: 0 stopped by a signal, 1 the database cannot be had, 2 settings.
    """
    found = reading(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
        grace=grace,
        lease=lease,
        log_level=log_level,
    )
    from receiver import build

    run(_until_signal(build.worker(found.settings, faults=found.faults)))


def drain(
    *,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Dispatches at most; all without it.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Seconds, or such as 5m; what has not ended by then is given back.",
        ),
    ] = None,
    as_json: AsJson = False,
    database: Database = None,
    database_schema: Schema = None,
    database_pooler: Pooler = None,
    config: Config = None,
    modules: Modules = None,
    grace: Grace = None,
    lease: Lease = None,
    log_level: LogLevel = None,
) -> None:
    """Run the handlers that are due now, then end.

    For cron, and for the schedules of a platform.
    A failed handler is no failure of this command: it is retried when its time has come.

    Example: wavehook drain --limit 100 --deadline 5m

    Exit codes: 0 done, 1 stopped by a signal, or no database, 2 usage or settings.
    """
    until = _time(deadline)
    found = reading(
        database=database,
        database_schema=database_schema,
        database_pooler=database_pooler,
        config=config,
        modules=modules,
        grace=grace,
        lease=lease,
        log_level=log_level,
    )
    from receiver import build

    count = run(_drained(build.worker(found.settings, faults=found.faults), limit, until))
    if count is None:
        raise WavehookError("stopped by a signal; what had not ended was given back")
    if as_json:
        json_line({"ran": count})
    else:
        typer.echo(f"{count} dispatch{'es' * (count != 1)} run")


async def _until_signal(work: WorkerParts) -> None:
    from receiver.cli.startup import captured, opened, patience
    from receiver.telemetry.log import logger

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(_: int, __: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    if not await opened(work.store.open, patience(work.settings)):
        return
    try:
        with captured(end):
            await work.dispatcher.start()
            collect_rarely()
            names = sorted(handler.name for handler in work.handlers)
            logger().info("worker.started", handlers=names, database=work.settings.database_label)
            await stop.wait()
            await work.dispatcher.stop(work.settings.grace)
        logger().info("worker.stopped")
    finally:
        await work.store.close()


async def _drained(work: WorkerParts, limit: int | None, deadline: float | None) -> int | None:
    """How many were run; None where a signal came before the end."""
    from receiver.cli.startup import captured, opened, patience

    loop = asyncio.get_running_loop()
    if not await opened(work.store.open, patience(work.settings)):
        return None
    try:
        task = asyncio.create_task(work.dispatcher.drain(limit, deadline))

        def end(_: int, __: FrameType | None) -> None:
            loop.call_soon_threadsafe(task.cancel)

        with captured(end):
            try:
                return await task
            except asyncio.CancelledError:
                return None
            finally:
                await work.dispatcher.stop(work.settings.grace)
    finally:
        await work.store.close()


def _time(text: str | None) -> float | None:
    try:
        return None if text is None else seconds(text)
    except ValueError:
        raise typer.BadParameter(
            "expected a time, in seconds or as 5m", param_hint="--deadline"
        ) from None
