"""How many may start at a rate, whoever counts and whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.stores.rate_limit import (
    MAX_CLOCK_STEP_S,
    NEVER,
    available_permits,
    burst_tolerance,
    clamp_clock_step,
    consume,
)

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("rate", "burst"), [(1 / 3600, 1), (0.5, 1), (1.0, 1), (2.5, 2), (3.0, 3), (10.0, 10)]
)
def test_a_second_s_worth_may_start_at_once(rate: float, burst: int) -> None:
    """F26: one at least, however long nothing was started; the rest at the rate."""
    for next_at in (NEVER, 0.0, NOW - 1.0 - 1 / rate):
        assert available_permits(next_at, rate, NOW) == burst
        assert available_permits(consume(next_at, rate, NOW, burst), rate, NOW) == 0


def test_a_late_start_loses_nothing_of_a_fast_rate() -> None:
    """What may be late is what the burst makes good; one a second has no tolerance."""
    assert [burst_tolerance(rate) for rate in (0.1, 1.0, 2.0, 10.0)] == [0.0, 0.0, 0.5, 0.9]
    next_at = consume(NEVER, 4.0, NOW, 4)
    late = next_at + burst_tolerance(4.0)
    assert consume(next_at, 4.0, late, 1) == next_at + 0.25
    assert consume(next_at, 4.0, late + 1.0, 1) == next_at + 1.25


def test_a_clock_that_is_set_back_holds_nobody_for_long() -> None:
    """F6: a time that no start can have led to counts as one turn; nearer ones are waited for."""
    assert clamp_clock_step(NOW + 0.5 + MAX_CLOCK_STEP_S, 2.0, NOW) == NOW + 0.5 + MAX_CLOCK_STEP_S
    assert clamp_clock_step(NOW + 3600, 2.0, NOW) == NOW + 0.5
    assert available_permits(clamp_clock_step(NOW + 3600, 2.0, NOW), 2.0, NOW) == 0


@given(
    rate=st.sampled_from((0.2, 0.7, 1.0, 1.5, 2.0, 7.0, 30.0)),
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 2), st.integers(1, 50)), min_size=1, max_size=60
    ),
)
@settings(deadline=None, database=None)
def test_no_span_of_time_has_more_starts_than_the_rate(
    rate: float, steps: list[tuple[float, float, int]]
) -> None:
    """F26: over any span, also where some count with a time of up to two seconds before."""
    now, next_at = NOW, NEVER
    starts: list[float] = []
    for passed, behind, asked in steps:
        now += passed
        seen = now - behind
        next_at = clamp_clock_step(next_at, rate, seen)
        count = min(asked, available_permits(next_at, rate, seen))
        if count:
            next_at = consume(next_at, rate, seen, count)
        starts += [seen] * count
    starts.sort()
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            allowed = max(1.0, rate) + rate * (starts[last] - starts[first])
            assert last - first + 1 <= allowed + 1e-3
