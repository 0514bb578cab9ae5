"""`wavehook worker` and `wavehook drain`: run handlers without receiving anything."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import DATABASE, Flags, JsonLines, setting_flags
from receiver.cli.startup import open_timeout, open_with_retries, run, signals_to, tune_gc
from receiver.errors import WavehookError
from receiver.telemetry.log import logger
from submitter.cli.run import json_line
from submitter.units import seconds

if TYPE_CHECKING:
    from receiver.build import WorkerParts


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ValueError:
        raise typer.BadParameter("expected a time, in seconds or as 5m") from None


@setting_flags(*DATABASE, "modules", "grace", "lease", "log_level")
def worker(*, flags: Flags) -> None:
    """Run handlers until stopped by a signal; receive no webhooks.

    For `serve --dispatch external`, or for more capacity on the same database. Any number of
    workers and servers share one database; each dispatch is run by one of them.

    Example: wavehook worker --database sqlite:////var/lib/wavehook/wavehook.db

    Exit codes: 0 stopped by a signal, 1 the database is not available, 2 settings.
    """
    found = flags.reading()
    from receiver import build

    run(_until_signal(build.worker(found.settings, faults=found.faults)))


@setting_flags(*DATABASE, "modules", "grace", "lease", "log_level")
def drain(
    *,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Run at most this many dispatches. [default: all]"),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=_duration,
            help="Stop after this time, in seconds or as 5m; what has not finished is released.",
        ),
    ] = None,
    as_json: JsonLines = False,
    flags: Flags,
) -> None:
    """Run the handlers that are due now, then exit.

    For cron, and for the schedules of a platform. A handler that fails is retried when its next
    attempt is due, and does not make this command fail.

    Example: wavehook drain --limit 100 --deadline 5m

    Exit codes: 0 done, 1 stopped by a signal, or no database, 2 usage or settings.
    """
    found = flags.reading()
    from receiver import build

    count = run(_drain(build.worker(found.settings, faults=found.faults), limit, deadline))
    if count is None:
        raise WavehookError("stopped by a signal; unfinished dispatches were released")
    if as_json:
        json_line({"ran": count})
    else:
        typer.echo(f"{count} dispatch{'es' * (count != 1)} run")


async def _until_signal(work: WorkerParts) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(_: int, __: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    if not await open_with_retries(work.store.open, open_timeout(work.settings)):
        return
    try:
        with signals_to(end):
            await work.dispatcher.start()
            tune_gc()
            names = sorted(handler.name for handler in work.handlers)
            logger().info("worker.started", handlers=names, database=work.settings.database_label)
            await stop.wait()
            await work.dispatcher.stop(work.settings.grace)
        logger().info("worker.stopped")
    finally:
        await work.store.close()


async def _drain(work: WorkerParts, limit: int | None, deadline: float | None) -> int | None:
    """The number of dispatches that were run; None if a signal stopped it."""
    loop = asyncio.get_running_loop()
    if not await open_with_retries(work.store.open, open_timeout(work.settings)):
        return None
    try:
        task = asyncio.create_task(work.dispatcher.drain(limit, deadline))

        def end(_: int, __: FrameType | None) -> None:
            loop.call_soon_threadsafe(task.cancel)

        with signals_to(end):
            try:
                return await task
            except asyncio.CancelledError:
                return None
            finally:
                await work.dispatcher.stop(work.settings.grace)
    finally:
        await work.store.close()
