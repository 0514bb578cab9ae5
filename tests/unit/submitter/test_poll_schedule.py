"""When to ask: every wait follows from one number."""

from __future__ import annotations

from itertools import pairwise

import pytest

from submitter.reconcile.schedule import HISTORY_LOOK_DELAYS_S, MIN_DURATIONS, Schedule

PLAIN = Schedule(300.0)
MIDDLE = lambda: 0.5  # noqa: E731 - no jitter


def test_a_model_without_history_is_overdue_by_the_setting() -> None:
    """Until enough tasks have ended, the setting says when a webhook is overdue."""
    assert PLAIN.expected([], webhook=True) == 300.0
    assert PLAIN.expected([5.0] * (MIN_DURATIONS - 1), webhook=True) == 300.0


def test_a_model_with_history_is_overdue_by_its_own_times() -> None:
    """The slowest of a hundred tasks and a margin, however long the others took."""
    usual = [100.0] * 99
    assert PLAIN.expected([*usual, 400.0], webhook=True) == 400.0 * 1.25 + 10.0
    assert PLAIN.expected([40.0] * MIN_DURATIONS, webhook=True) == 40.0 * 1.25 + 10.0


def test_without_a_webhook_it_is_asked_earlier() -> None:
    """Half of the tasks have ended by the first question; never sooner than the shortest wait."""
    durations = [float(number) for number in range(100)]
    assert PLAIN.expected([], webhook=False) == 5.0
    assert PLAIN.expected(durations, webhook=False) == 50.0
    assert PLAIN.expected([0.1] * MIN_DURATIONS, webhook=False) == 5.0


@pytest.mark.parametrize(("webhook", "first", "most"), [(True, 30.0, 3600.0), (False, 5.0, 60.0)])
def test_distances_grow_to_a_limit(webhook: bool, first: float, most: float) -> None:
    """F29: the distance between questions grows, and stays finite for any number of them."""
    waits = [PLAIN.again(asks, webhook=webhook, random=MIDDLE) for asks in range(20)]
    assert waits[0] == first
    assert waits[-1] == most
    assert all(one <= other for one, other in pairwise(waits))
    assert PLAIN.again(10**9, webhook=webhook, random=MIDDLE) == most


def test_questions_spread() -> None:
    """F26: jitter of a quarter to each side."""
    assert PLAIN.again(0, webhook=True, random=lambda: 0.0) == 22.5
    assert PLAIN.again(0, webhook=True, random=lambda: 1.0) == 37.5
    assert PLAIN.pause(0, lambda: 0.0) == 3.75
    assert PLAIN.pause(0, lambda: 1.0) == 6.25


def test_looks_into_the_history_end() -> None:
    """F32: a lost task is looked for several times, with growing distances, and then no more."""
    assert (
        tuple(PLAIN.look(looks) for looks in range(len(HISTORY_LOOK_DELAYS_S)))
        == HISTORY_LOOK_DELAYS_S
    )
    assert PLAIN.look(len(HISTORY_LOOK_DELAYS_S)) is None


def test_pauses_grow_to_a_limit() -> None:
    """A 429 that names no time is waited for longer each time, and never for ever."""
    waits = [PLAIN.pause(refusals, MIDDLE) for refusals in range(10)]
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == PLAIN.pause(10**9, MIDDLE) == 120.0


def test_all_is_in_proportion() -> None:
    """A tenth of the setting makes a tenth of each wait towards the API."""
    quick = Schedule(30.0)
    assert quick.expected([], webhook=True) == 30.0
    assert quick.expected([], webhook=False) == 0.5
    assert quick.again(0, webhook=True, random=MIDDLE) == 3.0
    assert quick.look(0) == HISTORY_LOOK_DELAYS_S[0] / 10
    assert quick.pause(0, MIDDLE) == 0.5
    assert quick.skew == PLAIN.skew / 10


def test_the_shortest_settings_do_not_spin() -> None:
    """However short, there is a time between two looks into the ledger, and an asker has time."""
    assert Schedule(0.001).tick == 0.02
    assert Schedule(0.001).hold == 5.0
    assert (PLAIN.tick, PLAIN.hold) == (5.0, 150.0)
