"""F6 on PostgreSQL: machines whose clocks differ agree on the server's."""

from __future__ import annotations

import asyncio
import time

import pytest

from receiver.event import DispatchState, Done, Released, RetryAt
from receiver.stores.base import Purged
from tests.support.events import CHAIN, DAY, LEASE, PLAN, claim, claim_one, event, only
from tests.support.postgres_server import Server

AHEAD = 40 * DAY
"""Seconds; `wrong` is a machine whose clock is that much ahead, or behind."""


@pytest.fixture(params=[AHEAD, -AHEAD], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest) -> float:
    """The time on a machine whose clock is wrong."""
    return time.time() + float(request.param)


async def test_what_a_wrong_clock_stored_is_due_at_once(server: Server, wrong: float) -> None:
    """F6: for a machine whose clock is right too; the event keeps the time that it came with."""
    store = await server.opened(clock="server")
    await store.add(event(received_at=wrong), PLAN)

    (found,) = await claim(store, now=time.time())

    assert found.event.received_at == wrong
    assert abs(found.dispatch.due_at - time.time() - LEASE) < 60
    await store.close()


async def test_a_wrong_clock_ends_nobody_s_lease(server: Server, wrong: float) -> None:
    """F6: leases last as long as they were asked for, by the server's clock."""
    store = await server.opened(clock="server")
    await store.add(event(), {"keep": ()})
    lease = await claim_one(store, now=wrong)

    assert await claim(store, owner="b", now=wrong + 2 * LEASE) == []
    assert await store.extend([lease], "a", LEASE, wrong) == []
    assert await claim(store, owner="b", now=time.time() + 2 * LEASE) == []
    assert await store.settle(lease, "a", Done(), wrong)
    settled = (await only(store)).settled_at
    assert settled is not None
    assert abs(settled - time.time()) < 60
    await store.close()


async def test_distances_are_kept(server: Server, wrong: float) -> None:
    """F6: a retry in an hour is one in an hour, a pause likewise, and so is what is told of it."""
    store = await server.opened(clock="server", local=lambda: wrong)
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store, now=wrong), "a", RetryAt(wrong + 3600, "no"), wrong)

    due = await store.next_due(["keep"])
    assert due is not None
    assert abs(due - wrong - 3600) < 60
    assert abs((await only(store)).due_at - time.time() - 3600) < 60
    await store.redeliver(event().id, {"keep": ()}, wrong)
    await store.pause("keep", wrong + 1800)
    assert await claim(store, now=wrong) == []
    due = await store.next_due(["keep"])
    assert due is not None
    assert abs(due - wrong - 1800) < 60
    assert await store.next_due(["nobody"]) is None
    await store.close()


async def test_a_lease_given_back_is_due_at_once(server: Server, wrong: float) -> None:
    """F6, F40: for everybody."""
    store = await server.opened(clock="server")
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store, now=wrong), "a", Released(), wrong)

    assert (await claim_one(store, now=time.time())).attempt == 2
    await store.close()


async def test_a_wrong_clock_forgets_no_key(server: Server) -> None:
    """F6, promise 7: thirty days are the server's, whatever the machine believes."""
    now = time.time()
    store = await server.opened(clock="server")
    for subject in ("old", "newer"):
        await store.add(event(subject, received_at=now - DAY), {})

    assert await store.purge(before=now + AHEAD, now=now + AHEAD) == Purged(2, 0)
    assert await store.purge(before=now + AHEAD, now=now) == Purged(0, 0)
    await store.close()


async def test_what_waited_is_due_once_it_is_freed(server: Server, wrong: float) -> None:
    """F6: a follower that a wrong clock's settle frees can be claimed at once."""
    store = await server.opened(clock="server")
    await store.add(event(), CHAIN)
    await store.settle(await claim_one(store, now=wrong), "a", Done(), wrong)

    assert (await claim_one(store, "tell", now=wrong)).state is DispatchState.LEASED
    await asyncio.gather(store.retry(event().id, "keep", wrong), store.close())
