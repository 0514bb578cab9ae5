"""GCRA rate limiter of one handler, shared by all processes through the store.

What is stored of a handler is one time: when its next start is due. Unused time counts for one
second at most (for one start at least), so that after a pause or an outage nobody catches up in a
burst. A process whose `now` lies before another's gains nothing by it.

The same arithmetic stands in `sql/postgres/0003_rates_and_plans.sql`.
"""

from __future__ import annotations

from math import floor, inf

NEVER = -inf
"""The next start of a handler that has not started anything."""

MAX_CLOCK_STEP_S = 30.0
"""A next start further ahead was stored before a clock was set back. Less than that is normal: two
machines' clocks differ, and a claim may wait for a lock after it has read the clock."""


def clamp_clock_step(next_at: float, rate: float, now: float) -> float:
    """The next start, at most one interval ahead if the clock was set back since it was stored.

    Args:
        next_at: Unix seconds, as it was stored.
        rate: starts a second.
        now: Unix seconds.
    """
    interval = 1 / rate
    return now + interval if next_at > now + interval + MAX_CLOCK_STEP_S else next_at


def available_permits(next_at: float, rate: float, now: float) -> int:
    """The number of starts that the rate allows at `now`."""
    if next_at > now:
        return 0
    return floor(min(max(1.0, rate), 1 + (now - next_at) * rate))


def consume(next_at: float, rate: float, now: float, count: int) -> float:
    """The next start after `count` starts at `now`."""
    return max(next_at, now - burst_tolerance(rate)) + count / rate


def burst_tolerance(rate: float) -> float:
    """Seconds by which a start may be late and still count as unused time."""
    return max(0.0, 1 - 1 / rate)
