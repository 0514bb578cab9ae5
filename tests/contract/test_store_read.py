"""What readers ask of a store: some events by id, and, promise 9, all that is new to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.event import Done, Event
from receiver.stores.base import Store
from receiver.stores.sqlite import SQL, SQLiteStore
from tests.support.events import DAY, NOW, PLAN, claim_one, event


async def read_all(store: Store, after: int = 0, limit: int = 2) -> list[str | None]:
    """The subjects of all events after a number, page by page."""
    found = []
    while page := await store.since(after, limit=limit):
        assert len(page) <= limit
        found += [listed.event.subject for listed in page]
        after = page[-1].seq
    return found


async def test_events_are_found_by_their_ids(store: Store) -> None:
    """Those that are there, and no others, however often they are asked for."""
    ids = ["s:A:1", "s:a:1", "s:a:1 ", "s:\u00e4:1", 's:"a\\:1', "s:a\u0308:1"]
    for id in ids[:5]:
        await store.add(event(id=id), {})

    found = await store.find([*ids, "nothing", ids[0]])

    assert found == {id: event(id=id) for id in ids[:5]}
    assert await store.find([]) == {}


async def test_what_was_found_is_the_reader_s_own(store: Store) -> None:
    """The stored event cannot be changed through one that was given out."""
    await store.add(event(), {})
    found = (await store.find([event().id]))[event().id]
    assert isinstance(found.context, dict)
    found.context.clear()

    assert (await store.find([event().id]))[event().id] == event()


async def test_many_are_found_at_once(store: Store) -> None:
    """As many as a thousand waiting callers ask for."""
    for n in range(50):
        await store.add(event(f"task-{n}"), {})

    asked = [f"wavespeed:task-{n}:{word}" for n in range(4000) for word in ("completed", "failed")]
    assert len(await store.find(asked)) == 50


async def test_events_are_read_in_order_of_arrival(store: Store) -> None:
    """Promise 9: by arrival, whatever time they carry, with the states of their dispatches."""
    for n in range(5):
        await store.add(event(f"task-{n}", received_at=NOW - n), PLAN)
    await store.settle(await claim_one(store, now=NOW - 4), "a", Done(), NOW)

    assert await read_all(store) == [f"task-{n}" for n in range(5)]
    assert await store.since(0) == (await store.events())[::-1]
    assert [listed.event.subject for listed in await store.since(0, limit=1)] == ["task-0"]


async def test_a_reader_that_keeps_the_last_number_misses_nothing(store: Store) -> None:
    """Promise 9: duplicates give no new number, and what follows has a greater one."""
    assert await store.last_seq() == 0
    await store.add(event("one"), {})
    seen = await store.last_seq()
    await store.add(event("one"), {})
    assert (await store.last_seq(), await store.since(seen)) == (seen, [])

    await store.add(event("two"), PLAN)

    (new,) = await store.since(seen)
    assert new.event == event("two")
    assert new.seq == await store.last_seq() > seen


async def test_no_number_is_given_twice(store: Store) -> None:
    """Promise 9: a purge of all that there is hides no later event from a reader."""
    for n in range(3):
        await store.add(event(f"task-{n}"), {})
    seen = await store.last_seq()

    await store.purge(before=NOW + 1, now=NOW + 60 * DAY)
    await store.add(event("new"), {})

    assert await read_all(store, after=seen) == ["new"]


async def test_a_reader_that_comes_late_reads_what_is_left(store: Store) -> None:
    """Promise 9: gaps that `purge` has left are passed over."""
    await store.add(event("old"), {})
    await store.add(event("open"), PLAN)
    await store.add(event("emptied"), {})

    await store.purge(before=NOW + 1, now=NOW + 60 * DAY)

    assert await read_all(store, limit=1) == ["open", "emptied"]
    assert (await store.since(0))[-1].event == event("emptied", body=b"", context=None)


async def test_numbers_go_on_after_a_restart_and_over_processes(tmp_path: Path) -> None:
    """Promise 9: the numbers are the file's, whoever writes to it."""
    one, two = SQLiteStore(tmp_path / "inbox.db"), SQLiteStore(tmp_path / "inbox.db")
    await one.open()
    await two.open()
    await one.add(event("one"), {})
    seen = await two.last_seq()
    await two.add(event("two"), {})
    await one.add(event("three"), {})

    assert await read_all(two, after=seen) == ["two", "three"]
    await one.close()
    await one.open()
    await one.purge(before=NOW + 1, now=NOW + 60 * DAY)
    await one.add(event("four"), {})
    assert await read_all(two, after=seen + 2) == ["four"]
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("find", {"ids": '["a"]'}, "SEARCH event USING INDEX event_id (id=?)"),
        ("since", {"after": 1, "limit": 9}, "SEARCH event USING INTEGER PRIMARY KEY (rowid>?)"),
        ("last_seq", {}, "SEARCH event"),
        ("event", {"id": "a"}, "SEARCH event USING INDEX event_id (id=?)"),
    ],
)
async def test_what_waits_reads_an_index(
    tmp_path: Path, name: str, values: dict[str, object], expected: str
) -> None:
    """No look of a waiting caller grows with the number of stored events: its plan says so."""
    store = SQLiteStore(tmp_path / "inbox.db")
    await store.open()
    await store.add(Event("s:a:1", "s", "t"), PLAN)
    connection = store._database.connect()
    plan = connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values).fetchall()
    connection.close()
    await store.close()

    steps = [step for *_, step in plan]
    assert expected in steps
    assert not [step for step in steps if "SCAN" in step and "wanted" not in step]
    assert not [step for step in steps if "TEMP B-TREE" in step]


async def test_a_purge_does_not_count_the_events_to_find_the_newest(tmp_path: Path) -> None:
    """Promise 9 costs `purge` one look at the end of the table, not one for each event."""
    store = SQLiteStore(tmp_path / "inbox.db")
    await store.open()
    connection = store._database.connect()
    values = {"after": 0, "before": NOW, "forget": NOW, "limit": 9}
    plan = connection.execute(f"EXPLAIN QUERY PLAN {SQL['old']}", values).fetchall()
    connection.close()
    await store.close()

    steps = [step for *_, step in plan]
    assert "SCALAR SUBQUERY 1" in steps
    assert steps[steps.index("SCALAR SUBQUERY 1") + 1] == "SEARCH event"
