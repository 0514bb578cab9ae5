"""Retry policy of a handler: exponential backoff with jitter. Pure: nothing here sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from receiver.errors import GiveUp, Retry
from receiver.event import Dead, RetryAt

MAX_ERROR_CHARS = 500
"""Of an error's text in rows and logs."""

MAX_RETRY_AFTER_S = 24 * 3600.0
"""The longest `Retry(after=…)` that is honoured."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: a random time up to `min(cap, base * 2**n)`.

    Full jitter spreads the retries after an outage evenly, so that they do not cause a second one
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Attributes:
        attempts: maximum number of runs, including the first.
        base: maximum of the first wait, in seconds.
        cap: maximum of every wait, in seconds.
    """

    attempts: int = 8
    base: float = 2.0
    cap: float = 600.0

    def next(
        self, tries: int, error: BaseException, now: float, random: Callable[[], float]
    ) -> RetryAt | Dead:
        """Decide after a failed attempt.

        Args:
            tries: attempts so far that count, including this one.
            error: what the handler raised.
            now: Unix seconds.
            random: returns a number from 0 to 1.
        """
        text = describe(error)
        if isinstance(error, GiveUp) or tries >= self.attempts:
            return Dead(text)
        # At 2**64 every cap has been reached; a larger exponent would overflow.
        wait = random() * min(self.cap, self.base * 2 ** min(tries - 1, 64))
        if isinstance(error, Retry) and error.after is not None:
            # The jitter is added, so that paused runs do not all start at the same moment.
            # `max` with this order of arguments turns NaN into zero.
            wait += min(max(0.0, error.after), MAX_RETRY_AFTER_S)
        return RetryAt(now + wait, text)


def describe(error: BaseException) -> str:
    """An error as one printable line of limited length, for rows and logs."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - any class may have a broken __str__
        return type(error).__name__
    if not isinstance(error, GiveUp | Retry):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_ERROR_CHARS])
    return line.strip() or type(error).__name__
