"""Several receivers on one file, started, stopped and locked out while senders send."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from pathlib import Path

from receiver.event import DispatchState
from tests.crash.conftest import Start
from tests.crash.receiving import (
    DATABASE,
    Receiver,
    all_handled,
    attempts,
    dispatches,
    event_id,
    inbox,
    notes,
)
from tests.support.waiting import until


async def test_one_event_at_many_doors(start: Start, tmp_path: Path) -> None:
    """F3, F22: three processes, new on a new file; one 202 an event, the rest 200, no 503."""
    receivers = await asyncio.gather(start(), start(), start())
    subjects = [f"task-{n}" for n in range(20)]

    sent = [(each, subject) for subject in subjects for each in receivers * 3]
    statuses = await asyncio.gather(*(each.post(subject) for each, subject in sent))

    told = Counter((subject, status) for (_, subject), status in zip(sent, statuses, strict=True))
    assert told == {(s, status): n for s in subjects for status, n in ((202, 1), (200, 8))}
    await all_handled(tmp_path)
    ran = Counter(note["key"] for note in notes(tmp_path))
    assert ran == {f"{event_id(s)}/{name}": 1 for s in subjects for name in ("note", "tell")}


async def test_another_process_holds_the_lock_for_a_while(start: Start, tmp_path: Path) -> None:
    """F22: senders wait a moment, and hear nothing of it."""
    receiver = await start(WAVEHOOK_DISPATCH="external")
    connection = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    posts = [asyncio.ensure_future(receiver.post(f"task-{n}")) for n in range(10)]

    done, _ = await asyncio.wait(posts, timeout=0.5)
    assert not done
    assert (await receiver.get("/livez")).status_code == 200
    connection.execute("ROLLBACK")
    connection.close()

    assert await asyncio.gather(*posts) == [202] * 10


async def test_the_survivor_does_the_work_of_the_killed(start: Start, tmp_path: Path) -> None:
    """F24, F25: leases outlive their process by their own length and no longer."""
    killed, survivor = await asyncio.gather(start(), start())
    for n in range(10):
        assert await killed.post(f"task-{n}", "test/slow") == 202
    await until(lambda: notes(tmp_path, "begin"))
    await killed.end(signal.SIGKILL)

    await all_handled(tmp_path)

    ended = Counter(note["key"] for note in notes(tmp_path, "end"))
    assert set(ended) == {f"{event_id(f'task-{n}')}/slow" for n in range(10)}
    assert survivor.pid in {note["pid"] for note in notes(tmp_path, "end")}


async def send_until_refused(receiver: Receiver, name: str) -> dict[str, int | None]:
    """Post until the receiver takes nothing more."""
    statuses: dict[str, int | None] = {}
    while None not in statuses.values():
        subject = f"{name}-{len(statuses)}"
        statuses[subject] = await receiver.post(subject)
    return statuses


async def test_a_rolling_restart_under_load(start: Start, tmp_path: Path) -> None:
    """F40: SIGTERM ends it with 0; all that it acknowledged is handled by the next one."""
    old = await start()
    loading = [asyncio.ensure_future(send_until_refused(old, f"task-{n}")) for n in range(8)]
    new = await start()
    assert await old.end(signal.SIGTERM) == 0

    statuses = {k: v for each in await asyncio.gather(*loading) for k, v in each.items()}
    assert set(statuses.values()) <= {202, 503, None}
    for subject, status in statuses.items():
        if status != 202:
            assert await new.post(subject) in {200, 202}
    await all_handled(tmp_path)
    ran = {note["key"] for note in notes(tmp_path)}
    assert ran == {f"{event_id(s)}/{name}" for s in statuses for name in ("note", "tell")}
    assert "Traceback" not in old.text + new.text


async def test_sigterm_gives_back_what_does_not_end(start: Start, tmp_path: Path) -> None:
    """F40: a run that outlasts the grace is given back at once, and costs no try."""
    receiver = await start()
    assert await receiver.post("short", "test/slow") == 202
    assert await receiver.post("long", "test/stuck") == 202
    await until(lambda: len(notes(tmp_path, "begin")) == 2)

    assert await receiver.end(signal.SIGTERM) == 0

    assert (await dispatches(tmp_path, "short"))["slow"].state is DispatchState.DONE
    stuck = (await dispatches(tmp_path, "long"))["stuck"]
    assert (stuck.state, stuck.tries, stuck.owner) == (DispatchState.PENDING, 0, None)
    (row,) = await attempts(tmp_path, "long", "stuck")
    assert row.outcome == "released"
    async with inbox(tmp_path) as store:
        assert (await store.stats()).depth == {("stuck", DispatchState.PENDING): 1}
