"""A database that cannot be reached yet, as a starting command waits for it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from receiver.cli.startup import OPEN_TIMEOUT_S, open_timeout, open_with_retries
from receiver.config import Settings
from receiver.errors import StoreRefused, StoreUnavailable


class Opening:
    """Fails so often, in such a way, and then opens."""

    def __init__(self, fails: int, error: Exception | None = None) -> None:
        self.tries = 0
        self._fails = fails
        self._error = error or StoreUnavailable("PostgreSQL at there: away")

    async def __call__(self) -> None:
        self.tries += 1
        if self.tries <= self._fails:
            raise self._error


async def test_it_is_tried_until_it_is_open() -> None:
    """F20: with a word for each try that failed, which names host and reason."""
    opening = Opening(3)
    with capture_logs() as lines:
        assert await open_with_retries(opening, 60.0, interval=0.001)
    assert opening.tries == 4
    assert [(line["event"], line["error"]) for line in lines] == [
        ("database.awaited", "PostgreSQL at there: away")
    ] * 3


async def test_the_last_error_is_told_where_it_does_not_open() -> None:
    """Bad input: at the end of the patience, and no later."""
    opening = Opening(1000)
    with pytest.raises(StoreUnavailable, match="there: away"):
        await open_with_retries(opening, 0.05, interval=0.01)
    assert opening.tries <= 5


@pytest.mark.parametrize(
    "error", [StoreRefused("PostgreSQL at there: no such user", "name another"), ValueError("x")]
)
async def test_what_waiting_does_not_help_is_told_at_once(error: Exception) -> None:
    """Bad input: a wrong password is not right a second later."""
    opening = Opening(1000, error)
    with pytest.raises(type(error), match=str(error)):
        await open_with_retries(opening, 60.0)
    assert opening.tries == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_waiting(number: int) -> None:
    """F40: the command ends, and the signals are as they were before."""
    before = signal.getsignal(number)
    waiting = asyncio.ensure_future(open_with_retries(Opening(1000), 60.0, interval=30.0))
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    assert not await waiting
    assert signal.getsignal(number) is before


async def test_who_is_cancelled_waits_no_more() -> None:
    """A cancel is not taken for a signal."""
    waiting = asyncio.ensure_future(open_with_retries(Opening(1000), 60.0, interval=30.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_file_is_not_waited_for() -> None:
    """What a disk does not have now, it does not have a moment later."""
    assert open_timeout(Settings()) == 0.0
    assert open_timeout(Settings(database="postgresql://127.0.0.1/x")) == OPEN_TIMEOUT_S
