"""Promise 5 and the rest: who is asked for, who is delivered, what is known, what is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, Ledger, Result, State
from tests.support.submissions import (
    MODEL,
    NOW,
    accepted,
    intended,
    only,
    prediction,
    result,
)


def keys(entries: Sequence[Entry]) -> list[str]:
    """Of entries, in their order."""
    return [entry.key for entry in entries]


async def test_due_comes_in_order_of_its_time(ledger: Ledger) -> None:
    """INTENDED from `until` on, UNKNOWN and ACCEPTED as they were told; the longest due first."""
    await accepted(ledger, "k1", "t1")
    await intended(ledger, "k2", until=NOW + 60)
    await intended(ledger, "k3")
    await ledger.mark_unknown("k3", "lost", NOW, ask_at=NOW + 31)
    await intended(ledger, "k4", until=NOW + 9999)

    assert await ledger.due(NOW + 30, hold=10) == []
    assert keys(await ledger.due(NOW + 300, hold=10, limit=2)) == ["k3", "k2"]
    assert keys(await ledger.due(NOW + 300, hold=10, limit=2)) == ["k1"]
    assert keys(await ledger.due(NOW + 310, hold=10)) == ["k1", "k2", "k3"]


async def test_due_is_for_one_asker_at_a_time(ledger: Ledger) -> None:
    """Promise 5: of many that ask at once, one gets it; another when the hold is over."""
    await accepted(ledger)

    answers = await asyncio.gather(*(ledger.due(NOW + 300, hold=60) for _ in range(5)))

    assert sorted(keys(answer) for answer in answers) == [[], [], [], [], ["k1"]]
    (taken,) = max(answers, key=len)
    assert taken == await only(ledger)
    assert taken.ask_at == NOW + 360
    assert await ledger.due(NOW + 359, hold=60) == []
    assert keys(await ledger.due(NOW + 360, hold=60)) == ["k1"]


async def test_due_of_some_keys(ledger: Ledger) -> None:
    """Only these, and only if their time has come."""
    for n in (1, 2, 3):
        await accepted(ledger, f"k{n}", f"t{n}")
    await accepted(ledger, "k4", "t4", now=NOW + 1000)

    found = await ledger.due(NOW + 300, hold=60, keys=["k3", "k4", "k1", "no"])

    assert keys(found) == ["k1", "k3"]
    assert await ledger.due(NOW + 300, hold=60, keys=[]) == []
    assert keys(await ledger.due(NOW + 300, hold=60)) == ["k2"]


async def test_ended_ones_are_not_due(ledger: Ledger) -> None:
    """There is nothing to ask any more."""
    await accepted(ledger, "k1", "t1")
    await intended(ledger, "k2")
    await ledger.finish([result()], NOW)
    await ledger.reject("k2", "no", NOW)

    assert await ledger.due(NOW + 1e6, hold=0) == []
    assert await ledger.due(NOW + 1e6, hold=0, keys=["k1", "k2"]) == []


async def test_postpone_counts_a_question(ledger: Ledger) -> None:
    """And sets the next time; an entry that is not open, or not there, is left alone."""
    await accepted(ledger)
    await ledger.due(NOW + 300, hold=60)

    await ledger.postpone("k1", NOW + 400)
    await ledger.postpone("k1", NOW + 500)
    await ledger.postpone("no", NOW + 500)

    found = await only(ledger)
    assert (found.asks, found.ask_at) == (2, NOW + 500)
    await intended(ledger, "k2")
    await ledger.reject("k2", "no", NOW)
    await ledger.postpone("k2", NOW)
    assert (await only(ledger, "k2")).ask_at is None


async def test_questions_are_counted_anew_for_a_task(ledger: Ledger) -> None:
    """How often the history was looked at says nothing about how often the task was asked for."""
    await intended(ledger)
    await ledger.postpone("k1", NOW)

    await ledger.accept("k1", prediction(), NOW, expected_at=NOW, guessed=True)

    assert (await only(ledger)).asks == 0


async def test_open_entries(ledger: Ledger) -> None:
    """The longest sent first; ended ones are not among them."""
    await intended(ledger, "k1", NOW + 2)
    await accepted(ledger, "k2", "t2", now=NOW + 1)
    await intended(ledger, "k3", NOW + 1)
    await ledger.mark_unknown("k3", "lost", NOW, ask_at=NOW)
    await accepted(ledger, "k4", "t4", now=NOW)
    await ledger.finish([result("t4")], NOW)
    await intended(ledger, "k5", NOW)
    await ledger.reject("k5", "no", NOW)

    assert keys(await ledger.open_entries()) == ["k2", "k3", "k1"]
    assert keys(await ledger.open_entries(limit=1)) == ["k2"]


async def test_undelivered(ledger: Ledger) -> None:
    """What has a webhook, was finished before a time, and is not in the inbox yet."""
    for n in range(5):
        await accepted(ledger, f"k{n}", f"t{n}", webhook=n != 1)
    await ledger.finish([result("t0", delivered=True), result("t1"), result("t2")], NOW + 50)
    await ledger.finish([result("t3")], NOW + 40)
    await ledger.finish([result("t4")], NOW + 60)

    assert keys(await ledger.undelivered(NOW + 60)) == ["k3", "k2"]
    assert keys(await ledger.undelivered(NOW + 60, limit=1)) == ["k3"]
    await ledger.finish([result("t3", delivered=True)], NOW + 61)
    assert keys(await ledger.undelivered(NOW + 61)) == ["k2", "k4"]


async def test_durations_are_of_completed_tasks(ledger: Ledger) -> None:
    """Of one model, the latest first; one that was finished before it was accepted has none."""
    for n, status in enumerate(("completed", "failed", "completed", "cancelled", "completed")):
        await accepted(ledger, f"k{n}", f"t{n}")
        await ledger.finish([Result(prediction(f"t{n}", status))], NOW + 11 + n)
    await accepted(ledger, "other", "t8", model="m2")
    await intended(ledger, "early")
    await ledger.finish([result("t8"), result("t9", "early")], NOW + 99)

    assert await ledger.durations(MODEL) == [14.0, 12.0, 10.0]
    assert await ledger.durations(MODEL, limit=2) == [14.0, 12.0]
    assert await ledger.durations("m2") == [98.0]
    assert await ledger.durations("m3") == []


async def test_overdue(ledger: Ledger) -> None:
    """Open ones whose result was expected before now, however often they were asked for."""
    for n in (1, 2, 3):
        await accepted(ledger, f"k{n}", f"t{n}")
    await accepted(ledger, "later", "t4", now=NOW + 1)
    await intended(ledger, "k5")
    await ledger.finish([result("t3")], NOW)
    await ledger.postpone("k1", NOW + 999)

    assert await ledger.overdue(NOW + 300) == 0
    assert await ledger.overdue(NOW + 301) == 2
    assert await ledger.overdue(NOW + 302) == 3


async def test_uploads(ledger: Ledger) -> None:
    """The same content is uploaded once, until its URL is too old; the latest word counts."""
    assert await ledger.uploaded("d", after=0) is None
    await ledger.upload("d", "https://x/1", NOW)
    await ledger.upload("e", "https://x/e", NOW)

    assert await ledger.uploaded("d", after=NOW - 1) == "https://x/1"
    assert await ledger.uploaded("d", after=NOW) is None
    await ledger.upload("d", "https://x/2", NOW + 5)
    assert await ledger.uploaded("d", after=NOW) == "https://x/2"


async def test_purge(ledger: Ledger) -> None:
    """F42: ended ones that are old go; open ones never do, and places are not given again."""
    for n in range(4):
        await accepted(ledger, f"k{n}", f"t{n}", now=NOW - 1e6)
    for n in (4, 5):
        await intended(ledger, f"k{n}", NOW - 1e6)
        await ledger.reject(f"k{n}", "no", NOW - 5 + n)
    await ledger.finish([result("t0"), result("t1")], NOW - 1)
    await ledger.finish([result("t2")], NOW)
    await ledger.upload("old", "u", NOW - 1)
    await ledger.upload("new", "u", NOW)

    assert await ledger.purge(NOW) == 3
    assert await ledger.purge(NOW) == 0

    found = await ledger.find([f"k{n}" for n in range(6)])
    assert {key: entry.state for key, entry in found.items()} == {
        "k2": State.FINISHED,
        "k3": State.ACCEPTED,
        "k5": State.REJECTED,
    }
    assert await ledger.uploaded("old", after=0) is None
    assert await ledger.uploaded("new", after=0) == "u"
    assert await ledger.purge(NOW + 1) == 2
    assert await ledger.last_place() == 3
    (done,) = await ledger.finish([result("t3")], NOW)
    assert done.place == 4


async def test_a_key_lives_on_after_its_rejection(ledger: Ledger) -> None:
    """An entry that was rejected long ago and is open again is not removed."""
    await intended(ledger)
    await ledger.reject("k1", "429", NOW - 1000)
    await intended(ledger)

    assert await ledger.purge(NOW) == 0
    assert (await only(ledger)).tries == 2


async def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    """It may be closed and opened twice, and what it holds is there again."""
    await intended(ledger)
    await ledger.open()
    await ledger.close()
    await ledger.close()

    for asked in (ledger.find(["k1"]), ledger.last_place(), ledger.pause(NOW)):
        with pytest.raises(LedgerUnavailable, match="not open"):
            await asked
    with pytest.raises(LedgerUnavailable, match="not open"):
        ledger.subscribe(lambda: None)

    await ledger.open()
    assert (await only(ledger)).state is State.INTENDED


async def test_close_finishes_what_was_asked(ledger: Ledger) -> None:
    """Promise 2: nobody who was let in is sent away."""
    asked = [asyncio.ensure_future(intended(ledger, f"k{n}")) for n in range(20)]
    await asyncio.sleep(0)
    await ledger.close()

    assert keys(await asyncio.gather(*asked)) == [f"k{n}" for n in range(20)]
    await ledger.open()
    assert len(await ledger.open_entries()) == 20
