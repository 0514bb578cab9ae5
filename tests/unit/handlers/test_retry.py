"""The retry policy: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import GiveUp, Retry
from receiver.event import Dead, RetryAt
from receiver.handlers.retry import MAX_ERROR_CHARS, MAX_RETRY_AFTER_S, Backoff, describe

NOW = 1_800_000_000.0


def always(number: float) -> Callable[[], float]:
    return lambda: number


@given(
    tries=st.integers(0, 10_000),
    base=st.floats(0, 1e9),
    cap=st.floats(0, 1e6),
    luck=st.floats(0, 1),
)
def test_a_wait_stays_within_its_bounds(tries: int, base: float, cap: float, luck: float) -> None:
    """F23: whatever the settings, the count and the luck, a wait is between none and the cap."""
    backoff = Backoff(attempts=10_001, base=base, cap=cap)
    decision = backoff.next(tries, ValueError("x"), 0.0, always(luck))
    assert isinstance(decision, RetryAt)
    assert 0.0 <= decision.at <= cap


@given(after=st.floats(allow_nan=True, allow_infinity=True), luck=st.floats(0, 1))
def test_any_wish_for_a_wait_gives_a_time(after: float, luck: float) -> None:
    """F27: a handler's `after` of NaN, below zero or without end still gives a bounded time."""
    decision = Backoff(cap=60.0).next(1, Retry(after=after), NOW, always(luck))
    assert isinstance(decision, RetryAt)
    assert NOW <= decision.at <= NOW + MAX_RETRY_AFTER_S + 60.0


def test_the_bound_doubles_until_the_cap() -> None:
    """F23: the upper bound of the wait doubles with each try and stops at the cap."""
    backoff = Backoff(attempts=99, base=2.0, cap=20.0)
    waits = [backoff.next(tries, ValueError(), NOW, always(1.0)) for tries in range(1, 7)]
    assert [wait.at - NOW for wait in waits if isinstance(wait, RetryAt)] == [2, 4, 8, 16, 20, 20]


def test_jitter_is_full() -> None:
    """F26: thousands that failed together spread over the whole wait, from nothing to its bound."""
    backoff = Backoff(base=100.0)
    spread = [backoff.next(1, ValueError(), NOW, always(luck / 10)) for luck in range(11)]
    waits = [round(one.at - NOW, 6) for one in spread if isinstance(one, RetryAt)]
    assert waits == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_what_was_asked_for_is_honoured_with_jitter_on_top() -> None:
    """F27: Retry-After is the least wait; jitter comes on top, so that not all return at once."""
    backoff = Backoff(base=4.0)
    for luck, expected in ((0.0, 30.0), (0.5, 32.0), (1.0, 34.0)):
        decision = backoff.next(1, Retry(after=30.0), NOW, always(luck))
        assert decision == RetryAt(NOW + expected, "retry")


def test_the_last_try_is_the_end() -> None:
    """F23: a handler that always fails is dead after its limit, with the reason."""
    backoff = Backoff(attempts=3)
    outcomes = [backoff.next(tries, ValueError("no"), NOW, always(0.5)) for tries in (1, 2, 3, 4)]
    assert [type(outcome) for outcome in outcomes] == [RetryAt, RetryAt, Dead, Dead]
    assert outcomes[2] == Dead("ValueError: no")


def test_a_retry_beyond_the_limit_is_dead_too() -> None:
    """F23: asking for another run does not go round the limit."""
    assert Backoff(attempts=1).next(1, Retry("busy", after=5.0), NOW, always(0.5)) == Dead("busy")


def test_giving_up_is_the_end_at_once() -> None:
    """F23: GiveUp is dead at the first try."""
    assert Backoff().next(1, GiveUp("gone"), NOW, always(0.5)) == Dead("gone")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (Retry("busy"), "busy"),
        (GiveUp(), "GiveUp"),
        (ValueError("a\r\nb\x1b[31m\x00c\ud800"), "ValueError: a  b [31m c"),
        (GiveUp("\n"), "GiveUp"),
    ],
)
def test_an_error_becomes_one_printable_line(error: Exception, text: str) -> None:
    """F17: line ends, control characters and lone surrogates do not reach rows and logs."""
    assert describe(error) == text


@given(st.text())
def test_any_error_text_is_bounded_and_printable(text: str) -> None:
    """F17: whatever an error says, its line is short and prints on one line."""
    line = describe(RuntimeError(text * 20))
    assert 0 < len(line) <= MAX_ERROR_CHARS
    assert line.isprintable()


def test_an_error_that_cannot_say_what_it_is_keeps_its_name() -> None:
    """F23: an exception whose own text fails is described by its class."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Broken()) == "Broken"


def test_numbers_stay_numbers_far_out() -> None:
    """A policy with huge settings does not overflow."""
    decision = Backoff(attempts=10**9, base=1e300, cap=1e9).next(10**8, OSError(), 0, always(1))
    assert isinstance(decision, RetryAt)
    assert math.isfinite(decision.at)
