"""Promises 4 and 6: what a run came to, told once and by its owner."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from receiver.event import Attempt, Dead, Dispatch, DispatchState, Done, Outcome, Released, RetryAt
from receiver.stores.base import Store
from tests.support.events import CHAIN, LEASE, NOW, PLAN, claim, claim_one, event, only

OUTCOMES: list[Outcome] = [Done("ok"), RetryAt(NOW + 9, "no"), Dead("never"), Released()]


async def test_done(store: Store) -> None:
    """Promise 6: a handler that returned; its result is kept and nothing is open."""
    await store.add(event(), {"keep": ()})

    assert await store.settle(await claim_one(store), "a", Done([1, {"a": None}]), NOW + 2)

    found = await only(store)
    assert (found.state, found.result, found.error) == (DispatchState.DONE, [1, {"a": None}], None)
    assert (found.settled_at, found.owner, found.attempt) == (NOW + 2, None, 1)
    assert await store.attempts(event().id) == [Attempt("keep", 1, "a", NOW, NOW + 2, "done")]
    assert await claim(store, now=NOW + 1e9) == []


async def test_retry(store: Store) -> None:
    """Promise 6, F23: a failed run says why, and the next one is at its time."""
    await store.add(event(), {"keep": ()})

    assert await store.settle(await claim_one(store), "a", RetryAt(NOW + 9, "é: no"), NOW + 2)

    assert await only(store) == Dispatch(
        event().id, "keep", attempt=1, tries=1, due_at=NOW + 9, error="é: no"
    )
    assert await store.attempts(event().id) == [
        Attempt("keep", 1, "a", NOW, NOW + 2, "retry", "é: no")
    ]


async def test_dead(store: Store) -> None:
    """Promise 6, F23: a dead dispatch is visible, with its reason, and runs no more."""
    await store.add(event(), PLAN)

    assert await store.settle(await claim_one(store), "a", Dead("never"), NOW + 2)

    found = await only(store)
    assert (found.state, found.error, found.settled_at) == (DispatchState.DEAD, "never", NOW + 2)
    assert await store.dead() == [found]
    assert await claim(store, now=NOW + 1e9) == []
    assert (await only(store, "tell")).state is DispatchState.PENDING


async def test_released(store: Store) -> None:
    """F40: a lease given back is due at once and costs no try; numbers still grow."""
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", RetryAt(NOW, "no"), NOW)
    await store.settle(await claim_one(store), "a", Released(), NOW + 2)

    found = await only(store)
    assert (found.state, found.owner, found.due_at) == (DispatchState.PENDING, None, NOW + 2)
    assert (found.attempt, found.tries) == (2, 1)
    again = await claim_one(store, now=NOW + 2)
    assert (again.attempt, again.tries) == (3, 2)
    assert [a.outcome for a in await store.attempts(event().id)] == ["retry", "released", None]


async def test_a_later_success_clears_the_error(store: Store) -> None:
    """Promise 6: the dispatch shows how it ended; the rows keep how it went."""
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", RetryAt(NOW, "no"), NOW)
    await store.settle(await claim_one(store), "a", Done(), NOW)

    assert (await only(store)).error is None
    assert [a.error for a in await store.attempts(event().id)] == ["no", None]


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_late_settle_changes_nothing(store: Store, outcome: Outcome) -> None:
    """Promise 4, F24: the lease is another's by now; the late result is dropped whole."""
    await store.add(event(), CHAIN)
    late = await claim_one(store, owner="a")
    await claim_one(store, owner="b", now=NOW + LEASE)
    before = await store.dispatches(event().id), await store.attempts(event().id)

    assert not await store.settle(late, "a", outcome, NOW + LEASE)
    assert (await store.dispatches(event().id), await store.attempts(event().id)) == before


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_an_earlier_attempt_of_the_same_owner_is_fenced(
    store: Store, outcome: Outcome
) -> None:
    """Promise 4, F24: the fence is the attempt, not the owner alone."""
    await store.add(event(), {"keep": ()})
    late = await claim_one(store)
    await claim_one(store, now=NOW + LEASE)

    assert not await store.settle(late, "a", outcome, NOW + LEASE)
    assert (await only(store)).state is DispatchState.LEASED


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_only_the_owner_may_settle(store: Store, outcome: Outcome) -> None:
    """Promise 4: not even with the right attempt may another."""
    await store.add(event(), {"keep": ()})
    lease = await claim_one(store, owner="a")

    assert not await store.settle(replace(lease, owner="b"), "b", outcome, NOW)
    assert await only(store) == lease


@pytest.mark.parametrize("first", OUTCOMES)
async def test_a_run_is_settled_once(store: Store, first: Outcome) -> None:
    """Promise 4: the second of two outcomes of one run is refused, one after the other."""
    await store.add(event(), {"keep": ()})
    lease = await claim_one(store)
    assert await store.settle(lease, "a", first, NOW)
    before = await only(store)

    assert not await store.settle(lease, "a", Dead("second"), NOW + 1)
    assert await only(store) == before


async def test_of_parallel_settles_one_counts(store: Store) -> None:
    """Promise 4: also where they come together."""
    await store.add(event(), {"keep": ()})
    lease = await claim_one(store)

    answers = await asyncio.gather(*(store.settle(lease, "a", Done(n), NOW) for n in range(10)))

    assert sorted(answers) == [False] * 9 + [True]
    assert len(await store.attempts(event().id)) == 1


async def test_a_lease_that_ran_out_but_was_not_taken_may_be_settled(store: Store) -> None:
    """Promise 4: a slow run is not thrown away while nobody else has begun."""
    await store.add(event(), {"keep": ()})

    assert await store.settle(await claim_one(store), "a", Done("slow"), NOW + 10 * LEASE)
    assert (await only(store)).result == "slow"


async def test_what_was_never_claimed_cannot_be_settled(store: Store) -> None:
    """Promise 4: nor can what does not exist."""
    await store.add(event(), {"keep": ()})

    assert not await store.settle(await only(store), "a", Done(), NOW)
    assert not await store.settle(Dispatch("nothing", "keep", attempt=1), "a", Done(), NOW)
    assert not await store.settle(Dispatch(event().id, "nobody", attempt=1), "a", Done(), NOW)


async def test_settling_one_leaves_the_others(store: Store) -> None:
    """F23: dispatches of other handlers and of other events do not change."""
    for subject in ("task-1", "task-2"):
        await store.add(event(subject), PLAN)
    lease, other = await claim(store)
    await claim(store, "tell")
    before = await store.dispatches(event("task-2").id), await only(store, "tell")

    await store.settle(lease.dispatch, "a", Dead("never"), NOW)

    assert (await store.dispatches(event("task-2").id), await only(store, "tell")) == before
    assert await store.extend([other.dispatch], "a", LEASE, NOW) == []


async def test_a_settle_wakes_for_whom_it_freed(store: Store) -> None:
    """A follower does not wait for the next event to be found."""
    await store.add(event(), CHAIN)
    lease = await claim_one(store)
    heard: list[str] = []
    store.subscribe(lambda: heard.append("wake"))

    await store.settle(lease, "a", Done(), NOW)

    assert heard == ["wake"]
