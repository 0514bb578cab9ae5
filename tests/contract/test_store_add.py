"""Promises 1 and 2: what `add` says is stored is stored, whole and once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Dispatch, DispatchState, Done, Event, Origin, Receipt
from receiver.stores.base import Store
from tests.support.events import CHAIN, NOW, PLAN, claim, claim_one, event

DONE = Done()


async def test_a_new_event_is_stored_with_all_its_dispatches(store: Store) -> None:
    """Promise 1, F2: after `add` there is nothing left to queue."""
    receipt = await store.add(event(), CHAIN)

    assert receipt == Receipt(event().id, duplicate=False)
    assert await store.event(event().id) == event()
    assert await store.dispatches(event().id) == [
        Dispatch(event().id, "keep", due_at=NOW),
        Dispatch(event().id, "tell", due_at=NOW, after=("keep",), waiting=True),
    ]


@pytest.mark.parametrize(
    "stored",
    [
        Event("insecure:x:0", "insecure", "parked"),
        event(body=bytes(range(256)), origin=Origin.RECONCILE, context="text"),
        event(context=False, origin=Origin.REPLAY, model="ñ'\"; DROP TABLE event; --"),
        event(body=b"x" * 1_048_576, context=[]),
    ],
    ids=["bare", "bytes", "quotes", "large"],
)
async def test_an_event_comes_back_as_it_went_in(store: Store, stored: Event) -> None:
    """Promise 1: every field of an event survives, whatever its bytes."""
    await store.add(stored, PLAN)

    assert await store.event(stored.id) == stored
    assert [found.event for found in await claim(store)] == [stored]


async def test_a_duplicate_changes_nothing(store: Store) -> None:
    """Promise 2, F5, F18: the first event of an id stays, with the handlers that it had."""
    await store.add(event(), {"keep": ()})
    second = event(type="prediction.failed", body=b"{}", received_at=NOW + 5)

    assert await store.add(second, PLAN) == Receipt(event().id, duplicate=True)
    assert await store.event(event().id) == event()
    assert [dispatch.handler for dispatch in await store.dispatches(event().id)] == ["keep"]
    assert len(await store.events()) == 1


async def test_a_duplicate_of_a_finished_event_does_not_run_again(store: Store) -> None:
    """F5: an event sent again after it was handled wakes nobody."""
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", DONE, NOW)

    assert (await store.add(event(), {"keep": ()})).duplicate
    assert await claim(store, now=NOW + 1e6) == []


async def test_ids_of_two_sources_are_apart(store: Store) -> None:
    """F19: one task id from two sources is two events."""
    other = event(id="insecure:task-1:completed", source="insecure")

    assert not (await store.add(event(), PLAN)).duplicate
    assert not (await store.add(other, PLAN)).duplicate
    assert [listed.event for listed in await store.events()] == [other, event()]


async def test_ids_are_compared_to_the_byte(store: Store) -> None:
    """F18: ids that differ in case, in a space or beyond ASCII are different."""
    ids = ["s:A:1", "s:a:1", "s:a:1 ", "s:\u00e4:1", "s:a\u0308:1"]

    receipts = [await store.add(replace(event(), id=id), {}) for id in ids]

    assert [receipt.duplicate for receipt in receipts] == [False] * len(ids)


async def test_parallel_adds_of_one_id_store_it_once(store: Store) -> None:
    """Promise 1, F3: of 64 tasks that add one event, one hears that it is new."""
    receipts = await asyncio.gather(*(store.add(event(), PLAN) for _ in range(64)))

    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 63
    assert len(await store.events()) == 1


async def test_parallel_adds_of_different_ids_are_all_stored(store: Store) -> None:
    """F3: distinct events that come together do not get into each other's way."""
    events = [event(f"task-{n}") for n in range(200)]

    receipts = await asyncio.gather(*(store.add(one, PLAN) for one in events))

    assert receipts == [Receipt(one.id, duplicate=False) for one in events]
    assert {listed.event.id for listed in await store.events(limit=500)} == {
        one.id for one in events
    }


async def test_an_event_that_no_handler_wants_is_kept(store: Store) -> None:
    """Promise 1: an event without dispatches is stored, and a duplicate the second time."""
    await store.add(event(), {})

    assert await store.dispatches(event().id) == []
    assert (await store.add(event(), {})).duplicate


async def test_a_new_dispatch_wakes_this_process(store: Store) -> None:
    """Subscribers hear of an event at once."""
    heard: list[str] = []
    store.subscribe(lambda: heard.append("first"))
    store.subscribe(lambda: heard.append("second"))

    await store.add(event(), PLAN)

    assert heard == ["first", "second"]


async def test_what_a_handler_does_to_its_event_stays_with_it(store: Store) -> None:
    """Promise 2: the stored event cannot be changed through one that was given out."""
    await store.add(event(), PLAN)
    (first,) = await claim(store)
    assert isinstance(first.event.context, dict)
    first.event.context.clear()

    assert await store.event(event().id) == event()


async def test_nothing_is_known_of_an_event_that_was_never_added(store: Store) -> None:
    """Reads of an unknown id are empty."""
    assert await store.event("nothing") is None
    assert await store.dispatches("nothing") == []
    assert await store.attempts("nothing") == []


async def test_a_closed_store_says_so(store: Store) -> None:
    """F20: every method raises StoreUnavailable after `close`."""
    await store.add(event(), PLAN)
    lease = await claim_one(store)
    await store.close()
    await store.close()

    for call in (
        store.ping(),
        store.add(event(), PLAN),
        store.claim("a", {"keep": 1}, 30, NOW),
        store.extend([lease], "a", 30, NOW),
        store.settle(lease, "a", DONE, NOW),
        store.pause("keep", NOW),
        store.next_due(["keep"]),
        store.event(event().id),
        store.events(),
        store.find([event().id]),
        store.since(0),
        store.last_seq(),
        store.dispatches(event().id),
        store.attempts(event().id),
        store.dead(),
        store.retry(event().id, "keep", NOW),
        store.redeliver(event().id, PLAN, NOW),
        store.purge(before=NOW, now=NOW),
        store.stats(),
    ):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_store_can_be_opened_again(store: Store) -> None:
    """What was stored before `close` is there after `open`, and `ping` answers."""
    await store.add(event(), PLAN)
    await claim(store, "tell", now=NOW)
    await store.close()
    await store.open()

    await store.ping()
    assert await store.event(event().id) == event()
    assert [one.state for one in await store.dispatches(event().id)] == [
        DispatchState.PENDING,
        DispatchState.LEASED,
    ]
