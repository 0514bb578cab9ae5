"""Promise 1: how much may be asked of the account, for all who share the ledger."""

from __future__ import annotations

import pytest

from submitter.ledger.base import IntentWritten, Ledger, LimitReached, Limits
from tests.support.submissions import NOW, accepted, intended, intent, prediction, result


async def sent(ledger: Ledger, key: str, limits: Limits, now: float = NOW) -> bool | LimitReached:
    """Whether it was written; when to try again, where it was not."""
    answer = await ledger.intend(intent(key), limits, now)
    if isinstance(answer, LimitReached):
        assert key not in await ledger.find([key])
        return answer
    return answer.fresh


async def test_the_rate_holds_in_every_minute(ledger: Ledger) -> None:
    """Two a minute: the third goes when the first leaves the window, no earlier."""
    limits = Limits(rate=2)
    assert await sent(ledger, "k1", limits, NOW)
    assert await sent(ledger, "k2", limits, NOW + 10)

    assert await sent(ledger, "k3", limits, NOW + 20) == LimitReached(NOW + 60)
    assert await sent(ledger, "k3", limits, NOW + 59.9) == LimitReached(NOW + 60)
    assert await sent(ledger, "k3", limits, NOW + 60) is True
    assert await sent(ledger, "k4", limits, NOW + 60) == LimitReached(NOW + 70)


async def test_a_rate_that_was_made_smaller(ledger: Ledger) -> None:
    """There is room when all but so many have left the window."""
    for n in range(5):
        await intended(ledger, f"k{n}", NOW + n)

    assert await sent(ledger, "k9", Limits(rate=2), NOW + 10) == LimitReached(NOW + 63)


async def test_the_rate_counts_whatever_came_of_it(ledger: Ledger) -> None:
    """A request that was refused was a request."""
    await intended(ledger, "k1")
    await ledger.reject("k1", "refused", NOW)
    await accepted(ledger, "k2", "t2")
    await ledger.finish([result("t2")], NOW)

    assert await sent(ledger, "k3", Limits(rate=2), NOW + 1) == LimitReached(NOW + 60)


async def test_the_rate_forgives_a_clock_that_was_set_back(ledger: Ledger) -> None:
    """F6: entries of a far future hold up nobody until then."""
    await intended(ledger, "k1", NOW + 3600)

    assert await sent(ledger, "k2", Limits(rate=1), NOW) is True


@pytest.mark.parametrize("end", ["finish", "reject"])
async def test_a_place_in_flight_is_freed_by_an_end(ledger: Ledger, end: str) -> None:
    """INTENDED, UNKNOWN and ACCEPTED take a place each; time alone frees none."""
    limits = Limits(in_flight=3)
    await accepted(ledger, "k1", "t1")
    await intended(ledger, "k2")
    await ledger.mark_unknown("k2", "lost", NOW, ask_at=NOW)
    assert await sent(ledger, "k3", limits) is True

    assert await sent(ledger, "k4", limits, NOW + 1e6) == LimitReached(None)
    if end == "finish":
        await ledger.finish([result("t1")], NOW)
    else:
        await ledger.reject("k2", "nothing", NOW)
    assert await sent(ledger, "k4", limits, NOW + 1) is True
    assert await sent(ledger, "k5", limits, NOW + 1) == LimitReached(None)


async def test_what_was_adopted_is_in_flight(ledger: Ledger) -> None:
    """The account's window counts tasks, whoever asked for them."""
    await ledger.import_task(prediction("t1", "created"), NOW, expected_at=NOW)

    assert await sent(ledger, "k1", Limits(in_flight=1)) == LimitReached(None)


async def test_a_key_that_is_there_needs_no_room(ledger: Ledger) -> None:
    """It is told of its entry, whatever the limits and the pause say."""
    entry = await intended(ledger)
    await ledger.pause(NOW + 60)

    answer = await ledger.intend(intent(), Limits(rate=1, in_flight=1), NOW)

    assert answer == IntentWritten(entry, fresh=False)


async def test_a_rejected_key_needs_room_again(ledger: Ledger) -> None:
    """It is about to be sent like any other."""
    await intended(ledger)
    await ledger.reject("k1", "429", NOW)

    answer = await ledger.intend(intent(), Limits(rate=1), NOW + 1)

    assert answer == LimitReached(NOW + 60)


async def test_a_pause_holds_for_all_and_is_never_made_shorter(ledger: Ledger) -> None:
    """A 429 pauses all submits, also those that have no limits."""
    await ledger.pause(NOW + 30)
    await ledger.pause(NOW + 10)

    assert await sent(ledger, "k1", Limits(), NOW + 29) == LimitReached(NOW + 30)
    assert await sent(ledger, "k1", Limits(), NOW + 30) is True


async def test_a_pause_from_before_a_clock_s_step_holds_nobody(ledger: Ledger) -> None:
    """F6: a clock that was ahead is put right; neither it nor the next pause lasts for as long."""
    await ledger.pause(NOW + 365 * 86400)
    assert await sent(ledger, "k1", Limits(), NOW) is True
    await ledger.pause(NOW + 30)
    assert await sent(ledger, "k2", Limits(), NOW) == LimitReached(NOW + 30)


async def test_the_later_of_rate_and_pause_counts(ledger: Ledger) -> None:
    """Whoever comes back at `until` is not sent away for what was known before."""
    await intended(ledger)
    await ledger.pause(NOW + 30)
    assert await sent(ledger, "k2", Limits(rate=1)) == LimitReached(NOW + 60)
    await ledger.pause(NOW + 90)
    assert await sent(ledger, "k2", Limits(rate=1)) == LimitReached(NOW + 90)
    assert await sent(ledger, "k2", Limits(rate=1, in_flight=1)) == LimitReached(None)
