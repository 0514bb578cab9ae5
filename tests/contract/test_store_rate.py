"""Promise 3, the rate of a handler: over all owners, at once or one after the other."""

from __future__ import annotations

import asyncio

import pytest

from receiver.event import Dead, Released
from receiver.stores.base import Store
from tests.support.events import CHAIN, LEASE, NOW, PLAN, claim, claim_one, event


async def fill(store: Store, count: int, plan: dict[str, tuple[str, ...]] = PLAN) -> None:
    """Store events that are due one after the other."""
    for n in range(count):
        await store.add(event(f"task-{n:02}", received_at=NOW - 100 + n), plan)


async def test_a_second_s_worth_and_then_at_the_rate(store: Store) -> None:
    """Promise 3: whoever asks, and however much."""
    await fill(store, 12)
    for n, count in enumerate((4, 1, 1, 1, 1, 1)):
        assert len(await claim(store, owner=f"o{n}", now=NOW + n / 4, rate=4.0)) == count
        assert await claim(store, owner="late", now=NOW + n / 4 + 0.24, rate=4.0) == []


async def test_the_longest_due_go_first(store: Store) -> None:
    """Promise 3: what the rate lets through is in order."""
    await fill(store, 5)
    found = await claim(store, rate=3.0)
    assert [each.event.subject for each in found] == ["task-00", "task-01", "task-02"]
    found = await claim(store, now=NOW + 2, rate=3.0)
    assert [each.event.subject for each in found] == ["task-03", "task-04"]


async def test_many_owners_at_once_share_one_rate(store: Store) -> None:
    """Promise 3: of all that ask in one moment, no more get one than the rate allows."""
    await fill(store, 40)
    for moment, allowed in ((NOW, 5), (NOW + 0.2, 1), (NOW + 60, 5)):
        answers = await asyncio.gather(
            *(claim(store, owner=f"o{n}", limit=3, now=moment, rate=5.0) for n in range(12))
        )
        assert sum(map(len, answers)) == allowed


async def test_a_slow_rate(store: Store) -> None:
    """Promise 3: one at least, and the next when its time has come, to the moment."""
    await fill(store, 3)
    assert len(await claim(store, rate=0.125)) == 1
    assert await claim(store, owner="b", now=NOW + 7.99, rate=0.125) == []
    assert len(await claim(store, owner="b", now=NOW + 8, rate=0.125)) == 1


async def test_nobody_catches_up_after_an_outage(store: Store) -> None:
    """F26: hours without a start give one second's worth."""
    await fill(store, 20)
    await claim(store, limit=1, rate=4.0)
    assert len(await claim(store, now=NOW + 7200, rate=4.0)) == 4


async def test_nobody_catches_up_after_a_pause(store: Store) -> None:
    """F26, F27: a paused handler spends nothing, and gains nothing."""
    await fill(store, 20)
    assert len(await claim(store, limit=2, rate=4.0)) == 2
    await store.pause("keep", NOW + 600)
    assert await claim(store, now=NOW + 1, rate=4.0) == []
    assert len(await claim(store, now=NOW + 600, rate=4.0)) == 4


async def test_what_is_left_unused_counts_for_one_second(store: Store) -> None:
    """Promise 3: owners that have room for less leave the rest to others."""
    await fill(store, 20)
    assert len(await claim(store, limit=1, rate=4.0)) == 1
    assert len(await claim(store, owner="b", rate=4.0)) == 3
    assert len(await claim(store, owner="b", now=NOW + 0.5, rate=4.0)) == 2


async def test_each_handler_has_its_own_rate(store: Store) -> None:
    """Promise 3: in one claim too; a handler without a rate is not held."""
    await fill(store, 9, {"keep": (), "tell": (), "free": ()})
    limits = {"tell": 9, "keep": 9, "free": 9, "none": 9, "zero": 0}
    rates = {"keep": 2.0, "tell": 3.0, "none": 5.0, "zero": 1.0, "not asked for": 1.0}

    found = await store.claim("a", limits, LEASE, NOW, rates)

    names = [each.dispatch.handler for each in found]
    assert {name: names.count(name) for name in set(names)} == {"keep": 2, "tell": 3, "free": 9}


async def test_a_lease_given_back_is_a_start(store: Store) -> None:
    """Promise 3, F40: its handler may have called out before it was stopped."""
    await fill(store, 1)
    await store.settle(await claim_one(store), "a", Released(), NOW)
    (found,) = await claim(store, rate=1.0)
    await store.settle(found.dispatch, "a", Released(), NOW)

    assert await claim(store, owner="b", rate=1.0) == []
    assert len(await claim(store, owner="b", now=NOW + 1, rate=1.0)) == 1


async def test_a_lease_taken_over_is_a_start(store: Store) -> None:
    """F24, F26: a fleet that died with a thousand leases comes back at the rate."""
    await fill(store, 6)
    assert len(await claim(store)) == 6
    assert len(await claim(store, owner="b", now=NOW + LEASE, rate=2.0)) == 2


async def test_a_clock_that_is_set_back_adds_nothing(store: Store) -> None:
    """F6: nothing more may start, and what was used up comes back in one turn's time."""
    early = NOW - 7200
    for n in range(20):
        await store.add(event(f"task-{n}", received_at=early - 60), PLAN)
    await claim(store, rate=2.0)

    assert await claim(store, now=early, rate=2.0) == []
    assert await claim(store, now=early + 0.25, rate=2.0) == []
    assert len(await claim(store, now=early + 0.5, rate=2.0)) == 1
    assert len(await claim(store, now=early + 60, rate=2.0)) == 2
    assert len(await claim(store, rate=2.0)) == 2


async def test_a_small_step_back_is_waited_for(store: Store) -> None:
    """F6: two that count with times which are apart get no more than one of them would."""
    await fill(store, 20)
    await claim(store, rate=2.0)
    for now in (NOW - 20, NOW, NOW - 5, NOW + 0.25):
        assert await claim(store, owner="b", now=now, rate=2.0) == []
    assert len(await claim(store, owner="b", now=NOW + 0.5, rate=2.0)) == 1


async def test_next_due_knows_when_the_rate_lets_one_start(store: Store) -> None:
    """A dispatcher whose rate others have used up knows when to look again."""
    await fill(store, 5)
    await claim(store, rate=2.0)
    assert await store.next_due(["keep"]) == NOW + 0.5
    assert await store.next_due(["tell"]) == NOW - 100
    await store.pause("keep", NOW + 9)
    assert await store.next_due(["keep"]) == NOW + 9


async def test_followers_are_metered_too(store: Store) -> None:
    """Promise 3: what is not claimable spends nothing."""
    await fill(store, 2, CHAIN)
    assert await claim(store, "tell", rate=1.0) == []
    for each in await claim(store, "keep"):
        await store.settle(each.dispatch, "a", Dead("no"), NOW)
    (found,) = await claim(store, "tell", rate=1.0)
    assert list(found.earlier) == ["keep"]


@pytest.mark.parametrize("other", [1 / 60, 100.0])
async def test_a_rate_that_was_changed(store: Store, other: float) -> None:
    """Promise 3: the one that is asked for counts, from the next claim on."""
    await fill(store, 20)
    await claim(store, rate=other)
    assert len(await claim(store, now=NOW + 61, rate=2.0)) == 2
    assert len(await claim(store, now=NOW + 61)) > 2
