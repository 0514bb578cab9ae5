"""How many may start now at a rate. What is kept of a handler is one time: when the next may start.

Unused time counts for a second at most (for one start at least), so that after a pause or an outage
nobody catches up in a burst (F26). Whoever counts with a `now` from before another's adds nothing.
"""

from __future__ import annotations

from math import floor, inf

NEVER = -inf
"""The time of a handler that has not started anything."""

STEP = 30.0
"""Seconds; a time further ahead is from before a clock was set back. Two processes may count with
times that are apart, and a claim may wait for a lock after it has looked at the clock."""


def believed(next_at: float, rate: float, now: float) -> float:
    """When the next may start, as far as that can be: a clock set back takes one turn at most.

    Args:
        next_at: Unix seconds, as it was kept.
        rate: starts a second.
        now: Unix seconds.
    """
    turn = 1 / rate
    return now + turn if next_at > now + turn + STEP else next_at


def free(next_at: float, rate: float, now: float) -> int:
    """How many may start at `now`."""
    if next_at > now:
        return 0
    return floor(min(max(1.0, rate), 1 + (now - next_at) * rate))


def spent(next_at: float, rate: float, now: float, count: int) -> float:
    """When the next may start after `count` have at `now`."""
    return max(next_at, now - spare(rate)) + count / rate


def spare(rate: float) -> float:
    """Seconds by which the next start may be late and the rate is reached all the same."""
    return max(0.0, 1 - 1 / rate)
