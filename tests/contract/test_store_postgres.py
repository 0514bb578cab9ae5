"""What a server adds to the promises: other processes, and transactions that meet."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import DispatchState, Done, Event, Released
from receiver.stores.base import Plan, Store
from receiver.stores.postgres import PostgresInbox, PostgresStore
from tests.support.events import CHAIN, DAY, LEASE, NOW, PLAN, claim, claim_one, event, only
from tests.support.postgres_server import Server, waits
from tests.support.waiting import until

PROCESSES = 4
EVENTS = 60
TWO: dict[str, tuple[str, ...]] = {"keep": (), "copy": (), "tell": ("keep", "copy")}


def inbox(server: Server) -> PostgresInbox:
    """The writes without a store, for a transaction that stays open."""
    return PostgresInbox(server.schema, channel=None, sender="test", server_clock=False)


async def test_processes_on_one_schema_store_and_run_each_event_once(server: Server) -> None:
    """F3, F43: four processes that start at once on a new schema."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.store_process",
            "add",
            f"{server.url}#{server.schema}",
            f"owner-{n}",
            str(EVENTS),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(PROCESSES)
    ]
    answers = [json.loads((await process.communicate())[0]) for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES
    ids = [event(f"task-{n}").id for n in range(EVENTS)]
    assert sorted(id for answer in answers for id in answer["new"]) == sorted(ids)
    ran = sorted(key for answer in answers for key in answer["ran"])
    assert ran == sorted(f"{id}/{name}" for id in ids for name in PLAN)


async def test_duplicates_to_two_stores_at_once(server: Server) -> None:
    """F3: whatever comes to both, in whatever order, is new once and has its dispatches once."""
    one, two = await server.opened(), await server.opened()
    events = [event(f"task-{n}") for n in range(200)]

    receipts = await asyncio.gather(
        *(one.add(each, PLAN) for each in events),
        *(two.add(each, PLAN) for each in reversed(events)),
    )

    fresh = [receipt.id for receipt in receipts if not receipt.duplicate]
    assert sorted(fresh) == sorted(each.id for each in events)
    assert (await two.stats()).depth == {(name, DispatchState.PENDING): 200 for name in PLAN}
    await one.close()
    await two.close()


async def test_a_number_is_given_in_the_order_of_the_commits(server: Server) -> None:
    """Promise 9: an event whose transaction is still open has no later one stored before it."""
    store = await server.opened()
    await store.add(event("first"), {})
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    await inbox(server).add(connection, [(event("slow"), {})])
    adding = asyncio.ensure_future(store.add(event("quick"), {}))
    await waits(server)

    assert [each.event.subject for each in await store.since(0)] == ["first"]
    await transaction.commit()
    await adding
    assert [(each.seq, each.event.subject) for each in await store.since(0)] == [
        (1, "first"),
        (2, "slow"),
        (3, "quick"),
    ]
    await connection.close()
    await store.close()


async def test_a_reader_misses_nothing_of_what_many_write(server: Server) -> None:
    """Promise 9: with `since` and the last number, while three stores add at once."""
    stores = [await server.opened() for _ in range(3)]
    reader = await server.opened()
    seen: list[int] = []
    subjects: set[str | None] = set()

    async def write(store: Store, first: int) -> None:
        for n in range(first, first + 120, 4):
            some = (event(f"task-{m}") for m in range(n, n + 4))
            await asyncio.gather(*(store.add(each, {}) for each in some))

    async def read() -> bool:
        page = await reader.since(seen[-1] if seen else 0, limit=7)
        seen.extend(each.seq for each in page)
        subjects.update(each.event.subject for each in page)
        return len(seen) >= 360

    writing = asyncio.gather(*(write(store, 120 * n) for n, store in enumerate(stores)))
    await until(read)
    await writing

    assert seen == sorted(set(seen))
    assert subjects == {f"task-{n}" for n in range(360)}
    for store in (*stores, reader):
        await store.close()


async def test_two_predecessors_that_end_unseen_by_each_other(server: Server) -> None:
    """Promise 3: whichever commits last frees the dispatch that waited for both."""
    store = await server.opened()
    await store.add(event(), TWO)
    keep, copy = await claim_one(store, "keep"), await claim_one(store, "copy")
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    # Ends `keep`, and looks for those that it frees while `copy` is still leased.
    assert await inbox(server).settle(connection, [(keep, "a", Done(), NOW)]) == [True]
    settling = asyncio.ensure_future(store.settle(copy, "a", Done(), NOW + 3))
    await waits(server)

    await transaction.commit()
    assert await settling

    tell = await only(store, "tell")
    assert (tell.waiting, tell.due_at) == (False, NOW + 3)
    await connection.close()
    await store.close()


async def test_a_redelivery_meets_the_end_of_a_predecessor(server: Server) -> None:
    """Promise 3: a dispatch that is to wait again for one that ends just now does not wait."""
    store = await server.opened()
    await store.add(event(), {"keep": (), "tell": ()})
    keep, tell = await claim_one(store, "keep"), await claim_one(store, "tell")
    await store.settle(tell, "a", Done(), NOW)
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    await inbox(server).settle(connection, [(keep, "a", Done(), NOW)])
    again = asyncio.ensure_future(store.redeliver(event().id, {"tell": ("keep",)}, NOW))
    await waits(server)

    await transaction.commit()
    assert await again

    assert not (await only(store, "tell")).waiting
    await connection.close()
    await store.close()


async def test_a_purge_leaves_what_is_delivered_again_just_now(server: Server) -> None:
    """Promise 7: and a redelivery that comes too late finds no event."""
    store = await server.opened()
    await store.add(event(), {"keep": ()})
    await store.settle(await claim_one(store), "a", Done("result"), NOW)
    await store.add(event("newer", received_at=NOW + 2 * DAY), {})
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    assert await inbox(server).redeliver(connection, [(event().id, {"keep": ()}, NOW)]) == [True]

    assert (await store.purge(before=NOW + DAY, now=NOW + 60 * DAY)).events == 0
    await transaction.commit()
    assert (await store.purge(before=NOW + DAY, now=NOW + 60 * DAY)).events == 0
    assert await store.event(event().id) == event()
    await store.settle(await claim_one(store), "a", Done("result"), NOW)

    transaction = connection.transaction()
    await transaction.start()
    await inbox(server).purge(connection, [(0, NOW + DAY, NOW + 60 * DAY, 10)])
    again = asyncio.ensure_future(store.redeliver(event().id, {"keep": ()}, NOW))
    await waits(server)
    await transaction.commit()
    assert not await again
    assert await store.dispatches(event().id) == []
    await connection.close()
    await store.close()


async def test_what_another_has_locked_is_passed_over(server: Server) -> None:
    """Promise 3: a claim waits for nobody, and takes what others have not."""
    store = await server.opened()
    for n in range(4):
        await store.add(event(f"task-{n}"), {"keep": ()})
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    (theirs,) = await inbox(server).claim(connection, [("b", {"keep": 2}, LEASE, NOW, {})])

    ours = await claim(store)

    assert [each.event.subject for each in theirs] == ["task-0", "task-1"]
    assert [each.event.subject for each in ours] == ["task-2", "task-3"]
    await transaction.rollback()
    assert [each.event.subject for each in await claim(store)] == ["task-0", "task-1"]
    await connection.close()
    await store.close()


async def test_everything_is_there_after_a_restart(server: Server) -> None:
    """F1: another object on the same schema sees what the first one confirmed, to the last row."""
    first = await server.opened()
    await first.add(event(), {**CHAIN, "copy": ()})
    await first.settle(await claim_one(first, "keep"), "a", Done("result"), NOW)
    await first.pause("copy", NOW + 60)
    lease = await claim_one(first, "tell")
    before = (
        await first.events(),
        await first.dispatches(event().id),
        await first.attempts(event().id),
        await first.stats(),
    )
    await first.close()

    second = await server.opened()
    assert (
        await second.events(),
        await second.dispatches(event().id),
        await second.attempts(event().id),
        await second.stats(),
    ) == before
    assert await claim(second, "copy", now=NOW + 59) == []
    assert await second.settle(lease, "a", Done(), NOW)
    await second.close()


async def test_another_store_is_woken(server: Server) -> None:
    """Whatever becomes claimable is heard of in every process; this one's own is heard of once."""
    one, two = await server.opened(), await server.opened()
    heard = {"one": 0, "two": 0}
    expected = 0

    def hear(name: str) -> None:
        heard[name] += 1

    one.subscribe(lambda: hear("one"))
    two.subscribe(lambda: hear("two"))

    async def told() -> bool:
        return heard["two"] == expected

    await one.add(event(), CHAIN)
    expected = 1
    await until(told)
    await one.settle(await claim_one(one), "a", Released(), NOW)
    expected = 2
    await until(told)
    await one.settle(await claim_one(one), "a", Done(), NOW)
    expected = 3
    await until(told)
    await one.redeliver(event().id, {"keep": ()}, NOW)
    expected = 4
    await until(told)
    # One more, so that anything that came late would have come by now.
    await two.add(event("last"), PLAN)

    async def answered() -> bool:
        return heard["one"] == 5

    await until(answered)
    assert heard["two"] == 5
    await one.close()
    await two.close()


async def test_one_group_of_new_repeated_and_stored_events(server: Server) -> None:
    """F3: whatever is mixed in one statement, each event is new once, with its own dispatches."""
    store = await server.opened()
    plans: dict[str, Plan] = {"a": {"h": ()}, "b": {"h": (), "i": ("h",)}, "c": {}, "d": {"h": ()}}
    events = {name: Event(f"s:{name}:completed", "s", "prediction.completed") for name in "abcd"}
    await store.add(events["b"], plans["b"])
    order = ["a", "a", "b", "c", "d", "c", "d", "a"]
    receipts = await asyncio.gather(*(store.add(events[name], plans[name]) for name in order))
    assert [not receipt.duplicate for receipt in receipts] == [
        True, False, False, True, True, False, False, False,
    ]  # fmt: skip
    for name, plan in plans.items():
        found = await store.dispatches(events[name].id)
        assert {each.handler: each.after for each in found} == dict(plan)
    await store.close()


async def test_a_bad_neighbour_does_not_fail_the_group(server: Server) -> None:
    """F20: an event that cannot be written fails alone, and its error shows nothing of it."""
    store = await server.opened()

    answers = await asyncio.gather(
        store.add(event("one"), PLAN),
        store.add(event("bad", model="secret \ud800"), PLAN),
        store.add(event("long", id="secret" + random.Random(1).randbytes(4000).hex()), PLAN),
        store.add(event("two"), PLAN),
        return_exceptions=True,
    )

    assert [isinstance(answer, StoreUnavailable) for answer in answers] == [
        False, True, True, False,
    ]  # fmt: skip
    assert "secret" not in str(answers)
    assert [listed.event.subject for listed in await store.events()] == ["two", "one"]
    await store.close()


async def test_a_zero_character_comes_back(server: Server) -> None:
    """Promise 1: PostgreSQL has none in a text, and a body's text may have some."""
    store = await server.opened()
    odd = event(id="s:\x00\x1a0:1", model="\x00\x1a\x1a1\x001", subject="a\x1a0", type="\x00")
    await store.add(odd, {"keep": ()})
    await store.add(event(id="s:\x1a00:1"), {})

    assert await store.find([odd.id]) == {odd.id: odd}
    assert [listed.event for listed in await store.events(type="\x00")] == [odd]
    lease = await claim_one(store)
    assert await store.extend([lease], "a", LEASE, NOW) == []
    assert await store.settle(lease, "a", Done("\x00"), NOW)
    assert [each.result for each in await store.dispatches(odd.id)] == ["\x00"]
    await store.close()


async def test_a_cancelled_add_is_stored_or_not_but_never_half(server: Server) -> None:
    """Promise 1: a sender that hangs up leaves a whole event behind, or none."""
    store = await server.opened()
    adding = asyncio.ensure_future(store.add(event(), PLAN))
    await asyncio.sleep(0)
    adding.cancel()
    await store.add(event("task-2"), PLAN)

    found = await store.event(event().id)
    assert len(await store.dispatches(event().id)) == (0 if found is None else len(PLAN))
    await store.close()


async def test_large_bodies_go_in_several_statements(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F13: a flood of large bodies is not one statement of gigabytes."""
    store = await server.opened(max_batch_bytes=1000)
    groups: list[int] = []
    add = store._inbox.add

    async def counted(connection: Any, batch: list[Any]) -> Any:
        groups.append(len(batch))
        return await add(connection, batch)

    monkeypatch.setattr(store._inbox, "add", counted)
    events = [event(f"task-{n}", body=b"x" * 400) for n in range(7)]
    await asyncio.gather(*(store.add(each, PLAN) for each in events))

    assert groups == [3, 3, 1]
    assert len(await store.find([each.id for each in events])) == 7
    await store.close()


@pytest.mark.parametrize("schema", ["", "Wavehook", "a" * 49, "pg_own", 'x"; --', "1a"])
def test_a_schema_s_name_that_cannot_be(schema: str) -> None:
    """Bad input: whatever would have to be quoted is refused by name."""
    with pytest.raises(ValueError, match="lower-case letters"):
        PostgresStore("postgresql://localhost/test", schema=schema)
