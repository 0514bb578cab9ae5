"""When to try again: a decision is a value, and nothing here sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from receiver.errors import GiveUp, Retry
from receiver.event import Dead, RetryAt

MAX_ERROR = 500
"""Characters of an error's text that are kept."""

MAX_AFTER = 24 * 3600.0
"""Seconds; a downstream that asks for a longer wait is asked again after this."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: a random time up to `min(cap, base * 2**n)`.

    Full jitter spreads the retries of an outage evenly, so that its end is no second one
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Attributes:
        attempts: runs at most, the first one included.
        base: seconds; the upper bound of the first wait.
        cap: seconds; the upper bound of every wait.
    """

    attempts: int = 8
    base: float = 2.0
    cap: float = 600.0

    def next(
        self, tries: int, error: BaseException, now: float, random: Callable[[], float]
    ) -> RetryAt | Dead:
        """Decide after a failed attempt.

        Args:
            tries: attempts so far that count, this one included.
            error: what the handler raised.
            now: Unix seconds.
            random: gives a number from 0 to 1.
        """
        text = describe(error)
        if isinstance(error, GiveUp) or tries >= self.attempts:
            return Dead(text)
        # Beyond 2**64 the cap has long been reached, and a float would overflow.
        wait = random() * min(self.cap, self.base * 2 ** min(tries - 1, 64))
        if isinstance(error, Retry) and error.after is not None:
            # What the downstream asked for, and the jitter on top of it (F26, F27).
            # The order of the arguments makes NaN a zero.
            wait += min(max(0.0, error.after), MAX_AFTER)
        return RetryAt(now + wait, text)


def describe(error: BaseException) -> str:
    """One bounded, printable line about an error, for rows and logs."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a stranger's class; its name says enough
        return type(error).__name__
    if not isinstance(error, GiveUp | Retry):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_ERROR])
    return line.strip() or type(error).__name__
