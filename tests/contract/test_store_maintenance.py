"""What people ask of a store: look, try again, clear away. Promise 7 among it."""

from __future__ import annotations

import pytest

from receiver.event import Dead, Dispatch, DispatchState, Done, Released, RetryAt
from receiver.stores.base import Purged, Stats, Store
from tests.support.events import CHAIN, DAY, NOW, PLAN, claim, claim_one, event, only

KEPT = 30 * DAY


async def finish(store: Store, subject: str = "task-1", **changes: float) -> None:
    """Store an event, and have it handled."""
    stored = event(subject, **changes)
    await store.add(stored, {"keep": ()})
    lease = await claim_one(store, now=stored.received_at)
    assert await store.settle(lease, "a", Done("result"), stored.received_at)


async def test_listing_is_newest_first_and_paged(store: Store) -> None:
    """Pages follow one another without gaps and without repeats."""
    for n in range(5):
        await store.add(event(f"task-{n}", received_at=NOW - n), PLAN)

    first = await store.events(limit=2)
    second = await store.events(limit=2, before=first[-1].seq)
    third = await store.events(limit=2, before=second[-1].seq)

    subjects = [listed.event.subject for listed in first + second + third]
    assert subjects == ["task-4", "task-3", "task-2", "task-1", "task-0"]
    assert await store.events(before=third[-1].seq) == []


async def test_listing_shows_states_by_handler(store: Store) -> None:
    """Each event with how far its handlers are; one without handlers too."""
    await store.add(event("task-1"), CHAIN)
    await store.add(event("task-2"), {})
    await store.settle(await claim_one(store), "a", Done(), NOW)

    bare, full = await store.events()

    assert bare.dispatches == {}
    assert full.dispatches == {"keep": DispatchState.DONE, "tell": DispatchState.PENDING}
    assert full.event == event("task-1")


async def test_listing_by_type(store: Store) -> None:
    """Only events of exactly this type."""
    await store.add(event("one", type="prediction.failed"), {})
    await store.add(event("two"), {})
    await store.add(event("three", type="prediction.failed"), {})

    found = await store.events(type="prediction.failed")

    assert [listed.event.subject for listed in found] == ["three", "one"]
    assert await store.events(type="prediction.*") == []
    assert len(await store.events(type="prediction.failed", before=found[0].seq)) == 1


async def test_dead_ones_are_listed_latest_first(store: Store) -> None:
    """F23: a person sees the newest trouble on top."""
    for subject in ("one", "two", "three"):
        await store.add(event(subject), {"keep": ()})
    for n, found in enumerate(await claim(store)):
        await store.settle(found.dispatch, "a", Dead(str(n)), NOW + (n + 1) % 3)

    assert [found.error for found in await store.dead()] == ["1", "0", "2"]
    assert [found.error for found in await store.dead(limit=1)] == ["1"]


async def test_a_dead_dispatch_can_be_retried(store: Store) -> None:
    """F23: by hand, at once, with all its tries before it; the numbers go on."""
    await store.add(event(), {"keep": ()})
    for n in range(3):
        await store.settle(await claim_one(store), "a", RetryAt(NOW, str(n)), NOW)
    await store.settle(await claim_one(store), "a", Dead("never"), NOW)

    assert await store.retry(event().id, "keep", NOW + 5)

    found = await only(store)
    assert (found.state, found.tries, found.attempt) == (DispatchState.PENDING, 0, 4)
    assert (found.due_at, found.settled_at) == (NOW + 5, None)
    assert await store.dead() == []
    again = await claim_one(store, now=NOW + 5)
    assert (again.attempt, again.tries) == (5, 1)


async def test_only_the_dead_are_retried(store: Store) -> None:
    """F23: pending, leased, done and unknown ones stay as they are."""
    await store.add(event(), {"keep": (), "tell": (), "copy": ()})
    await claim_one(store, "tell")
    await store.settle(await claim_one(store, "copy"), "a", Done(), NOW)
    before = await store.dispatches(event().id)

    for event_id, handler in [(event().id, n) for n in ("keep", "tell", "copy", "nobody")]:
        assert not await store.retry(event_id, handler, NOW)
    assert not await store.retry("nothing", "keep", NOW)
    assert await store.dispatches(event().id) == before


async def test_a_retry_does_not_hold_back_those_who_waited(store: Store) -> None:
    """A follower that was freed stays free, and sees finished dispatches only."""
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store), "a", Dead("never"), NOW)
    await store.retry(event().id, "keep", NOW)

    (found,) = await claim(store, "tell")

    assert found.earlier == {}


async def test_redeliver_runs_the_finished_again(store: Store) -> None:
    """Done and dead dispatches are pending once more, with nothing left of their end."""
    await store.add(event(), {"keep": (), "tell": (), "copy": ()})
    await store.settle(await claim_one(store, "keep"), "a", Done("result"), NOW)
    await store.settle(await claim_one(store, "tell"), "a", Dead("never"), NOW)
    await store.settle(await claim_one(store, "copy"), "a", RetryAt(NOW + 99, "no"), NOW)

    assert await store.redeliver(event().id, {"keep": (), "tell": (), "copy": ()}, NOW + 5)

    assert await store.dispatches(event().id) == [
        Dispatch(event().id, name, attempt=1, due_at=NOW + 5) for name in ("copy", "keep", "tell")
    ]
    assert (await claim_one(store, now=NOW + 5)).attempt == 2


async def test_redeliver_leaves_alone_what_runs(store: Store) -> None:
    """A run that goes on is not run twice, and its lease still counts."""
    await store.add(event(), {"keep": ()})
    lease = await claim_one(store)

    assert await store.redeliver(event().id, {"keep": ("tell",), "tell": ()}, NOW + 5)

    assert await only(store, "keep") == lease
    assert await store.settle(lease, "a", Done(), NOW + 6)


async def test_redeliver_leaves_alone_whom_it_does_not_name(store: Store) -> None:
    """One handler of many can be run again."""
    await store.add(event(), PLAN)
    for name in PLAN:
        await store.settle(await claim_one(store, name), "a", Done(name), NOW)

    await store.redeliver(event().id, {"tell": ()}, NOW + 5)

    assert (await only(store, "keep")).result == "keep"
    assert (await only(store, "tell")).state is DispatchState.PENDING


async def test_redeliver_adds_new_handlers(store: Store) -> None:
    """A handler that was installed later gets events from before."""
    await store.add(event(), {})

    assert await store.redeliver(event().id, CHAIN, NOW + 5)

    assert await store.dispatches(event().id) == [
        Dispatch(event().id, "keep", due_at=NOW + 5),
        Dispatch(event().id, "tell", due_at=NOW + 5, after=("keep",), waiting=True),
    ]


async def test_redeliver_keeps_the_order_of_the_plan(store: Store) -> None:
    """Followers wait for predecessors that run again, and for no others."""
    await store.add(event(), CHAIN)
    for name in CHAIN:
        await store.settle(await claim_one(store, name), "a", Done(name), NOW)

    await store.redeliver(event().id, CHAIN, NOW + 1)
    assert await claim(store, "tell", now=NOW + 1) == []
    await store.settle(await claim_one(store, now=NOW + 1), "a", Done("new"), NOW + 2)
    (found,) = await claim(store, "tell", now=NOW + 2)
    assert found.earlier["keep"].result == "new"
    await store.settle(found.dispatch, "a", Released(), NOW + 2)

    await store.redeliver(event().id, {"tell": ("keep",)}, NOW + 3)
    assert (await claim(store, "tell", now=NOW + 3))[0].earlier["keep"].result == "new"


async def test_redeliver_follows_a_plan_that_changed(store: Store) -> None:
    """Who waits for whom is what the plan says today."""
    await store.add(event(), CHAIN)

    await store.redeliver(event().id, {"keep": ("tell",), "tell": ()}, NOW)

    assert (await only(store, "keep")).waiting
    assert await only(store, "tell") == Dispatch(event().id, "tell", due_at=NOW)


async def test_redeliver_of_an_unknown_event(store: Store) -> None:
    """There is nothing to run."""
    assert not await store.redeliver("nothing", PLAN, NOW)
    assert await store.dispatches("nothing") == []


@pytest.mark.parametrize("action", ["retry", "redeliver"])
async def test_a_person_wakes_the_dispatcher(store: Store, action: str) -> None:
    """What was made claimable by hand runs at once."""
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", Dead("never"), NOW)
    heard: list[str] = []
    store.subscribe(lambda: heard.append("wake"))

    if action == "retry":
        await store.retry(event().id, "keep", NOW)
    else:
        await store.redeliver(event().id, {"keep": ()}, NOW)

    assert heard == ["wake"]


async def test_purge_removes_what_was_said_and_done(store: Store) -> None:
    """Promise 7: body, context, results and attempts go; the key and the states stay."""
    await finish(store)

    assert await store.purge(before=NOW + 1, now=NOW + DAY) == Purged(payloads=1, events=0)

    assert await store.event(event().id) == event(body=b"", context=None)
    assert await store.attempts(event().id) == []
    found = await only(store)
    assert (found.state, found.result, found.attempt) == (DispatchState.DONE, None, 1)
    assert (await store.add(event(), PLAN)).duplicate
    assert await store.purge(before=NOW + 1, now=NOW + DAY) == Purged(payloads=0, events=0)


async def test_purge_goes_by_age(store: Store) -> None:
    """Promise 7: what was received at `before` or later stays whole."""
    await finish(store, "old", received_at=NOW - 1)
    await finish(store, "new", received_at=NOW)

    assert await store.purge(before=NOW, now=NOW + DAY) == Purged(payloads=1, events=0)
    assert await store.event(event("new").id) == event("new")
    assert len(await store.attempts(event("new").id)) == 1


async def test_purge_keeps_a_key_for_thirty_days(store: Store) -> None:
    """Promise 7, F42: whatever `before` says, and to the second."""
    await finish(store)
    await store.add(event("newer"), PLAN)

    assert (await store.purge(before=NOW + 1e9, now=NOW + KEPT)).events == 0
    assert (await store.add(event(), PLAN)).duplicate
    assert await store.purge(before=NOW + 1e9, now=NOW + KEPT + 1) == Purged(0, 1)
    assert await store.event(event().id) is None
    assert await store.dispatches(event().id) == []
    assert not (await store.add(event(), PLAN)).duplicate


async def test_purge_removes_no_key_that_was_received_after_before(store: Store) -> None:
    """Promise 7: an old event is kept where only older ones are to go."""
    await finish(store)

    assert await store.purge(before=NOW, now=NOW + 2 * KEPT) == Purged(0, 0)
    assert await store.event(event().id) == event()


@pytest.mark.parametrize("state", ["pending", "leased", "retry", "waiting"])
async def test_purge_touches_nothing_that_is_open(store: Store, state: str) -> None:
    """Promise 7, F42: one open dispatch keeps the whole event, however old."""
    await store.add(event(), {"done": (), **(CHAIN if state == "waiting" else {"keep": ()})})
    await store.settle(await claim_one(store, "done"), "a", Done(), NOW)
    if state == "leased":
        await claim_one(store)
    if state == "retry":
        await store.settle(await claim_one(store), "a", RetryAt(NOW + 1e10, "no"), NOW)
    before = await store.dispatches(event().id), await store.attempts(event().id)

    assert await store.purge(before=NOW + 1e9, now=NOW + 1e9) == Purged(0, 0)
    assert await store.event(event().id) == event()
    assert (await store.dispatches(event().id), await store.attempts(event().id)) == before


async def test_purge_takes_events_without_handlers_and_dead_ones(store: Store) -> None:
    """Promise 7: both are finished."""
    await store.add(event("none"), {})
    await store.add(event("dead"), {"keep": ()})
    await store.settle(await claim_one(store), "a", Dead("never"), NOW)
    await store.add(event("newer", received_at=NOW + 1), {})

    assert await store.purge(before=NOW + 1, now=NOW + 2 * KEPT) == Purged(0, 2)
    assert [listed.event.subject for listed in await store.events()] == ["newer"]
    assert await store.dead() == []


async def test_purge_leaves_of_the_newest_event_its_key(store: Store) -> None:
    """Promises 7 and 9: its payload goes, its row stays until another event follows."""
    await finish(store)

    assert await store.purge(before=NOW + 1, now=NOW + 2 * KEPT) == Purged(1, 0)
    assert await store.event(event().id) == event(body=b"", context=None)
    await store.add(event("newer", received_at=NOW + 1), {})
    assert await store.purge(before=NOW + 1, now=NOW + 2 * KEPT) == Purged(0, 1)


async def test_purge_of_many(store: Store) -> None:
    """Promise 7: more than one step's worth goes in one call."""
    for n in range(1200):
        await store.add(event(f"task-{n}"), {})
    await store.add(event("open"), PLAN)

    assert await store.purge(before=NOW + 1, now=NOW) == Purged(1200, 0)
    assert await store.purge(before=NOW + 1, now=NOW + 2 * KEPT) == Purged(0, 1200)
    assert [listed.event.subject for listed in await store.events()] == ["open"]


async def test_purge_again_after_a_redelivery(store: Store) -> None:
    """Promise 7: the attempts of the second round go as those of the first."""
    await finish(store)
    await store.purge(before=NOW + 1, now=NOW)
    await store.redeliver(event().id, {"keep": ()}, NOW)
    await store.settle(await claim_one(store), "a", Done("again"), NOW)

    await store.purge(before=NOW + 1, now=NOW)

    assert await store.attempts(event().id) == []
    assert (await only(store)).result is None


async def test_stats_count_by_handler_and_state(store: Store) -> None:
    """All but the done ones, those that wait included."""
    for subject in ("one", "two", "three"):
        await store.add(event(subject), CHAIN)
    done, dead, _ = [found.dispatch for found in await claim(store)]
    await store.settle(done, "a", Done(), NOW)
    await store.settle(dead, "a", Dead("never"), NOW)

    assert (await store.stats()).depth == {
        ("keep", DispatchState.DEAD): 1,
        ("keep", DispatchState.LEASED): 1,
        ("tell", DispatchState.PENDING): 3,
    }


async def test_the_oldest_open_event_has_no_exclusions(store: Store) -> None:
    """F44: delayed, paused, leased and waiting ones count; finished ones do not."""
    assert await store.stats() == Stats({}, None)
    await finish(store, "done", received_at=NOW - 9)
    await store.add(event("waiting", received_at=NOW - 8), {"tell": ("keep",), "keep": ()})
    await store.pause("keep", NOW + 60)
    await store.add(event("new"), PLAN)

    assert (await store.stats()).oldest_open == NOW - 8


async def test_dead_of_one_moment_are_listed_by_handler(store: Store) -> None:
    """F23: the listing has one order on every backend, whatever order the plan had."""
    await store.add(event("s1"), {"zeta": (), "alpha": ()})
    for claimed in await store.claim("o", {"zeta": 1, "alpha": 1}, 60, NOW):
        assert await store.settle(claimed.dispatch, "o", Dead("x"), NOW)
    assert [each.handler for each in await store.dead()] == ["alpha", "zeta"]
