"""One attempt: a run of a handler with a timeout that holds, and always an outcome."""

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
"""Largest result that is stored, as compact JSON; a larger one is dropped."""

CANCEL_GRACE_S = 1.0
"""Seconds for a cancelled handler to clean up before it is abandoned."""


class TimedOut(Exception):
    """The handler did not return within its timeout."""


class Exited(Exception):
    """The handler called `sys.exit`; the process goes on."""


async def run(
    installed: Installed,
    claim: Claim,
    now: float,
    random: Callable[[], float],
    *,
    cancel_grace: float = CANCEL_GRACE_S,
) -> tuple[Outcome, BaseException | None]:
    """Run a handler once.

    Args:
        installed: the handler and its rules.
        claim: the leased dispatch.
        now: Unix seconds of the start.
        random: returns a number from 0 to 1, for the jitter.
        cancel_grace: seconds for a cancelled handler to clean up before it is abandoned.

    Returns:
        The outcome, and the error if there was one. `RetryAt.at` counts from the end of the run,
        by the event loop's clock.

    Raises:
        asyncio.CancelledError: the run was cancelled from outside.
    """
    dispatch, retry = claim.dispatch, installed.retry
    if dispatch.tries > retry.attempts:
        # Every counted attempt ended without an outcome: each one took its process down.
        return Dead("gave up: the last attempt did not end, or crashed its process"), None
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
        result = await _within(_guarded(installed, claim, context), installed.timeout, cancel_grace)
    except Exception as error:  # noqa: BLE001 - the retry policy decides, and the attempt's row keeps it
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


async def _within(work: Any, timeout: float, cancel_grace: float) -> Any:
    """Await `work` with a timeout in seconds; a task that ignores its cancellation is abandoned.

    `asyncio.wait` for the one task costs 3 µs more of the 130 µs of CPU that a dispatch takes
    (tests/bench/test_dispatch_speed.py).
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    over = loop.create_future()
    task.add_done_callback(lambda _: _over(over))
    timer = loop.call_later(timeout, _over, over)
    try:
        await over
        if task.done():
            return task.result()
        raise TimedOut(f"timed out after {timeout:g} s")
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=cancel_grace)
        if task.done() and not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio would log it


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
    """A result as compact JSON, as its size is measured.

    Raises:
        TypeError, ValueError, RecursionError: it is not JSON.
    """
    text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode()
