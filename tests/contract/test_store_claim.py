"""Promises 3, 5 and 8: who may run what, and when."""

from __future__ import annotations

import asyncio

from receiver.event import Attempt, Dead, DispatchState, Done, RetryAt
from receiver.stores.base import Store
from tests.support.events import (
    CHAIN,
    LEASE,
    NOW,
    PLAN,
    claim,
    claim_one,
    event,
    only,
)


async def test_a_claim_is_a_lease_with_the_event(store: Store) -> None:
    """Promise 3: a claim carries all that its handler needs, and is stored as a lease."""
    await store.add(event(), PLAN)

    (found,) = await claim(store, owner="a", now=NOW + 1)

    assert found.event == event()
    assert found.earlier == {}
    assert found.dispatch == await only(store)
    assert (found.dispatch.state, found.dispatch.owner) == (DispatchState.LEASED, "a")
    assert (found.dispatch.attempt, found.dispatch.tries) == (1, 1)
    assert found.dispatch.due_at == NOW + 1 + LEASE
    assert found.dispatch.key == f"{event().id}/keep"


async def test_a_leased_dispatch_is_nobody_elses(store: Store) -> None:
    """Promise 3: neither another owner nor the same one is given it again."""
    await store.add(event(), PLAN)
    await claim_one(store, owner="a")

    assert await claim(store, owner="b", now=NOW + LEASE - 0.001) == []
    assert await claim(store, owner="a", now=NOW + LEASE - 0.001) == []


async def test_parallel_claims_share_nothing(store: Store) -> None:
    """Promise 3: of many owners that ask at once, each dispatch goes to one."""
    for n in range(40):
        await store.add(event(f"task-{n}"), PLAN)

    answers = await asyncio.gather(
        *(store.claim(f"owner-{n}", {"keep": 3, "tell": 3}, LEASE, NOW) for n in range(20))
    )

    keys = [found.dispatch.key for claims in answers for found in claims]
    assert len(keys) == len(set(keys)) == 80


async def test_limits_hold_for_each_handler(store: Store) -> None:
    """Promise 3: as many as asked for, of the handlers asked for, and no others."""
    for n in range(5):
        await store.add(event(f"task-{n}"), {"keep": (), "tell": (), "other": ()})

    claims = await store.claim("a", {"keep": 2, "tell": 3, "nobody": 5, "other": 0}, LEASE, NOW)

    names = [found.dispatch.handler for found in claims]
    assert sorted(names) == ["keep"] * 2 + ["tell"] * 3
    assert {d.state for d in await store.dispatches(event("task-4").id)} == {DispatchState.PENDING}


async def test_nothing_is_claimed_where_nothing_is_asked(store: Store) -> None:
    """Promise 3: no limits, no claims."""
    await store.add(event(), PLAN)

    assert await store.claim("a", {}, LEASE, NOW) == []


async def test_longest_due_goes_first(store: Store) -> None:
    """Promise 3: by the due time, then by arrival."""
    for subject, received_at in (("late", NOW), ("early", NOW - 9), ("also-late", NOW)):
        await store.add(event(subject, received_at=received_at), PLAN)

    first, second = await claim(store, limit=2)
    (third,) = await claim(store)

    assert [c.event.subject for c in (first, second, third)] == ["early", "late", "also-late"]


async def test_nothing_is_claimed_before_its_time(store: Store) -> None:
    """Promise 3: a retry waits for its time, to the moment."""
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", RetryAt(NOW + 60, "no"), NOW)

    assert await claim(store, now=NOW + 59.999) == []
    assert (await claim_one(store, now=NOW + 60)).attempt == 2


async def test_an_expired_lease_goes_to_another(store: Store) -> None:
    """Promise 5, F24: another takes over; the first run's row says that it was lost."""
    await store.add(event(), PLAN)
    await claim_one(store, owner="a")

    taken = await claim_one(store, owner="b", now=NOW + LEASE)

    assert (taken.owner, taken.attempt, taken.tries) == ("b", 2, 2)
    assert await store.attempts(event().id) == [
        Attempt("keep", 1, "a", NOW, NOW + LEASE, "lost"),
        Attempt("keep", 2, "b", NOW + LEASE),
    ]


async def test_an_owner_may_claim_its_own_expired_lease(store: Store) -> None:
    """F25: a restarted process under the same name runs it again, with the same key."""
    await store.add(event(), PLAN)
    first = await claim_one(store, owner="a")

    second = await claim_one(store, owner="a", now=NOW + LEASE)

    assert second.key == first.key
    assert second.attempt == 2


async def test_a_renewed_lease_stays(store: Store) -> None:
    """Promise 5: `extend` moves the end of leases that are still owned, expired or not."""
    await store.add(event(), PLAN)
    lease = await claim_one(store)

    assert await store.extend([lease], "a", LEASE, NOW + 20) == []
    assert await claim(store, owner="b", now=NOW + 49) == []
    assert await store.extend([lease], "a", LEASE, NOW + 55) == []
    assert await claim(store, owner="b", now=NOW + 84) == []
    assert (await claim_one(store, owner="b", now=NOW + 85)).attempt == 2


async def test_extend_tells_what_was_lost(store: Store) -> None:
    """Promise 5, F24: another's, an earlier attempt's and a settled one's lease are not renewed."""
    for subject in ("kept", "taken", "again", "settled"):
        await store.add(event(subject), {"keep": ()})
    kept, taken, again, settled = [found.dispatch for found in await claim(store)]
    await store.extend([kept], "a", 1000, NOW)
    await store.settle(settled, "a", Done(), NOW)
    for owner in ("b", "a"):
        await claim(store, owner=owner, now=NOW + LEASE, limit=1)

    lost = await store.extend([kept, taken, again, settled], "a", LEASE, NOW + LEASE)

    assert lost == [taken, again, settled]
    assert (await only(store, subject="taken")).owner == "b"
    assert (await only(store, subject="settled")).state is DispatchState.DONE


async def test_extend_of_one_named_twice(store: Store) -> None:
    """Promise 5: it is one lease; each mention of a lost one is told."""
    for subject in ("task-1", "task-2"):
        await store.add(event(subject), {"keep": ()})
    held, taken = (each.dispatch for each in await store.claim("a", {"keep": 2}, LEASE, NOW))
    await store.settle(taken, "a", Done(), NOW)

    named = [held, taken, held, taken]
    assert await store.extend(named, "a", LEASE, NOW + 1) == [taken, taken]


async def test_extend_of_nothing(store: Store) -> None:
    """Promise 5: no leases, none lost."""
    assert await store.extend([], "a", LEASE, NOW) == []


async def test_a_follower_waits_for_its_predecessor(store: Store) -> None:
    """Promise 3: `after` keeps a dispatch back for however long."""
    await store.add(event(), CHAIN)
    await claim_one(store, "keep")

    assert await claim(store, "tell", now=NOW + 1e9) == []
    assert (await only(store, "tell")).waiting


async def test_a_follower_sees_what_its_predecessor_returned(store: Store) -> None:
    """Promise 3: freed at once, with the finished dispatches of `after`."""
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store), "a", Done({"url": "s3://é"}), NOW + 5)

    (found,) = await claim(store, "tell", now=NOW + 5)

    assert found.earlier == {"keep": await only(store, "keep")}
    assert found.earlier["keep"].result == {"url": "s3://é"}
    assert not found.dispatch.waiting


async def test_a_dead_predecessor_frees_as_well(store: Store) -> None:
    """F23: one handler that gave up does not hold the others for ever."""
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store), "a", Dead("broken"), NOW)

    (found,) = await claim(store, "tell")

    assert found.earlier["keep"].state is DispatchState.DEAD
    assert found.earlier["keep"].error == "broken"


async def test_a_retry_frees_nobody(store: Store) -> None:
    """Promise 3: a predecessor that is to run again is not finished."""
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store), "a", RetryAt(NOW, "later"), NOW)

    assert await claim(store, "tell", now=NOW + 1e9) == []


async def test_a_follower_of_two_waits_for_both(store: Store) -> None:
    """Promise 3: and is due when the last one ended, not when the event came."""
    await store.add(event(), {"keep": (), "copy": (), "tell": ("keep", "copy")})
    await store.settle(await claim_one(store, "keep"), "a", Done(), NOW + 1)
    assert await claim(store, "tell", now=NOW + 1) == []
    await store.settle(await claim_one(store, "copy"), "a", Done(), NOW + 7)

    assert (await only(store, "tell")).due_at == NOW + 7
    assert set((await claim(store, "tell", now=NOW + 7))[0].earlier) == {"keep", "copy"}


async def test_followers_of_other_events_are_left_alone(store: Store) -> None:
    """Promise 3: a predecessor frees the dispatches of its own event."""
    await store.add(event("one"), CHAIN)
    await store.add(event("two", received_at=NOW + 1), CHAIN)
    await store.settle(await claim_one(store), "a", Done(), NOW)

    assert [found.event.subject for found in await claim(store, "tell")] == ["one"]


async def test_a_paused_handler_is_given_nothing(store: Store) -> None:
    """Promise 3, F27: until its time; other handlers go on."""
    await store.add(event(), PLAN)
    await store.pause("keep", NOW + 60)

    assert await claim(store, "keep", now=NOW + 59.999) == []
    assert len(await claim(store, "tell")) == 1
    assert len(await claim(store, "keep", now=NOW + 60)) == 1


async def test_a_pause_is_never_made_shorter(store: Store) -> None:
    """Promise 3, F27: the longest of all that were asked for holds."""
    await store.add(event(), PLAN)
    for until in (NOW + 10, NOW + 60, NOW + 20):
        await store.pause("keep", until)

    assert await claim(store, now=NOW + 59) == []
    assert len(await claim(store, now=NOW + 60)) == 1


async def test_a_pause_holds_back_expired_leases_too(store: Store) -> None:
    """Promise 3: a handler that must not be run is not run for anybody."""
    await store.add(event(), PLAN)
    await claim_one(store)
    await store.pause("keep", NOW + 100)

    assert await claim(store, owner="b", now=NOW + 99) == []
    assert len(await claim(store, owner="b", now=NOW + 100)) == 1


async def test_next_due_is_the_earliest_of_those_asked_for(store: Store) -> None:
    """A dispatcher knows how long it may sleep: pending ones, and leases that may run out."""
    await store.add(event("one", received_at=NOW + 7), {"keep": ()})
    await store.add(event("two", received_at=NOW + 3), {"tell": ()})
    await store.add(event("three", received_at=NOW - 5), {"other": ()})
    assert await store.next_due(["keep", "tell", "nobody"]) == NOW + 3

    await claim_one(store, "tell", now=NOW + 4)
    assert await store.next_due(["keep", "tell"]) == NOW + 7
    assert await store.next_due(["tell"]) == NOW + 4 + LEASE


async def test_next_due_knows_nothing_of_what_cannot_run(store: Store) -> None:
    """Waiting, finished and unknown dispatches are never due."""
    await store.add(event(), CHAIN)
    assert await store.next_due(["tell"]) is None
    assert await store.next_due([]) is None

    await store.settle(await claim_one(store), "a", Dead("no"), NOW)
    assert await store.next_due(["keep"]) is None


async def test_next_due_is_not_before_the_pause(store: Store) -> None:
    """F27: a dispatcher does not wake up in vain while a handler is paused."""
    await store.add(event(), PLAN)
    await store.pause("keep", NOW + 50)
    await store.pause("tell", NOW - 50)

    assert await store.next_due(["keep"]) == NOW + 50
    assert await store.next_due(["keep", "tell"]) == NOW


async def test_a_clock_that_steps_forward_takes_no_work_away(store: Store) -> None:
    """F6: leases run out at once, the work moves on, and nothing is done twice in the rows."""
    await store.add(event(), {"keep": ()})
    late = await claim_one(store, owner="a")
    taken = await claim_one(store, owner="b", now=NOW + 1e7)

    assert not await store.settle(late, "a", Done("late"), NOW + 1e7)
    assert await store.settle(taken, "b", Done("taken"), NOW + 1e7)
    assert (await only(store)).result == "taken"


async def test_a_clock_that_steps_back_loses_no_work(store: Store) -> None:
    """F6: what was leased or delayed in the future comes back when its time does."""
    for subject in ("leased", "delayed"):
        await store.add(event(subject, received_at=NOW + 3600), {"keep": ()})
    leased, delayed = [c.dispatch for c in await claim(store, now=NOW + 3600)]
    assert await store.settle(delayed, "a", RetryAt(NOW + 3700, "no"), NOW)
    assert await store.extend([leased], "a", LEASE, NOW) == []
    await store.add(event("new"), {"keep": ()})

    assert [c.event.subject for c in await claim(store, owner="b", now=NOW)] == ["new"]
    assert [c.event.subject for c in await claim(store, owner="b", now=NOW + 3700)] == [
        "leased",
        "new",
        "delayed",
    ]
