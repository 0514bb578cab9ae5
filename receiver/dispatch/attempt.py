"""One run of a handler: a time limit that holds, and an outcome whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from receiver.event import Claim, Dead, Done, Outcome
from receiver.handlers.base import Context, Installed
from submitter.prediction import JSON

MAX_RESULT_BYTES = 64 * 1024
"""Bytes of a handler's result, as compact JSON, that are kept; a longer one is not."""

CANCEL_GRACE = 1.0
"""Seconds that a cancelled handler has to clean up before it is left behind."""


class TimedOut(Exception):
    """The handler did not return within its time limit."""


class Exited(Exception):
    """The handler called `sys.exit`, which must not end the process."""


async def run(
    installed: Installed, claim: Claim, now: float, random: Callable[[], float]
) -> tuple[Outcome, BaseException | None]:
    """Run a handler once.

    Args:
        installed: the handler and its rules.
        claim: the leased dispatch.
        now: Unix seconds, of the start.
        random: gives a number from 0 to 1.

    Returns:
        What it came to, and the error where there was one. `RetryAt.at` counts from the end of
        the run as the event loop's clock measured it.

    Raises:
        asyncio.CancelledError: the run was cancelled from outside.
    """
    dispatch, retry = claim.dispatch, installed.retry
    if dispatch.tries > retry.attempts:
        # Only runs that ended nowhere can bring it here: each took its process down (F23).
        return Dead("gave up: the last run did not end, or took its process down"), None
    context = Context(
        key=dispatch.key,
        handler=dispatch.handler,
        attempt=dispatch.attempt,
        deadline=now + installed.timeout,
        earlier=claim.earlier,
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        result = await _within(_guarded(installed, claim, context), installed.timeout)
    except Exception as error:  # noqa: BLE001 - goes by the retry policy and into the attempt's row
        ended = now + loop.time() - started
        decided = retry.next(dispatch.tries, error, ended, random)
        return replace(decided, error=installed.masked(decided.error)), error
    return Done(_as_json(result)), None


async def _guarded(installed: Installed, claim: Claim, context: Context) -> Any:
    try:
        return await installed.handle(claim.event, context)
    except SystemExit:
        raise Exited("called sys.exit") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise TimedOut("cancelled itself") from None


async def _within(work: Any, seconds: float) -> Any:
    """Await `work` for so long; one that ignores its cancellation is left behind (F24)."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    # What `asyncio.wait` does for one task, at a third of its price: every run pays it.
    over = loop.create_future()
    task.add_done_callback(lambda _: _over(over))
    timer = loop.call_later(seconds, _over, over)
    try:
        await over
        if task.done():
            return task.result()
        raise TimedOut(f"timed out after {seconds:g} s")
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE)
        if task.done() and not task.cancelled():
            task.exception()  # what a cancelled run raised has no reader


def _over(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _as_json(result: object) -> JSON:
    if result is None:
        return None
    try:
        data = compact_json(result)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(data) if len(data) <= MAX_RESULT_BYTES else None


def compact_json(result: object) -> bytes:
    """A result as it is measured.

    Raises:
        TypeError, ValueError, RecursionError: it is no JSON.
    """
    text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode()
