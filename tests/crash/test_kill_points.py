"""SIGKILL at the worst moments, each exactly."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
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
    notes,
)
from tests.support.waiting import until

PENDING = {"note": DispatchState.PENDING, "tell": DispatchState.PENDING}


async def doomed(start: Start, point: str) -> Receiver:
    """A receiver that will kill itself."""
    return await start("-m", "tests.crash.kill_points", point)


def runs(folder: Path, step: str = "note") -> list[int]:
    """The attempts of `task-1` that came to this step, all under one key."""
    found = notes(folder, step)
    assert {note["key"] for note in found} == {f"{event_id('task-1')}/{step}"}
    return [note["attempt"] for note in found]


def stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    states = [(each / "stat").read_text().rpartition(")")[2].split()[0] for each in threads]
    return set(states) == {"T"}


async def freeze(receiver: Receiver, folder: Path) -> None:
    """Stop a process where it does not hold the database's lock, which nobody could take over."""
    while True:
        receiver.process.send_signal(signal.SIGSTOP)
        # The signal takes effect a little later: a thread may still take the lock until then.
        await until(lambda: stopped(receiver.process.pid))
        connection = sqlite3.connect(folder / DATABASE, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            receiver.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.01)
        else:
            return
        finally:
            connection.close()


async def test_killed_before_the_commit(start: Start, tmp_path: Path) -> None:
    """F2: nothing was acknowledged, nothing is stored; the sender's retry is the first."""
    receiver = await doomed(start, "before-commit")
    assert await receiver.post("task-1") is None
    assert await receiver.ended() == -signal.SIGKILL
    assert await dispatches(tmp_path, "task-1") == {}

    assert await (await start()).post("task-1") == 202
    await all_handled(tmp_path)
    assert runs(tmp_path) == [1]


async def test_killed_after_the_commit_before_the_reply(start: Start, tmp_path: Path) -> None:
    """F2: the event and all its dispatches are there; the sender's retry is a duplicate."""
    receiver = await doomed(start, "after-commit")
    assert await receiver.post("task-1") is None
    assert await receiver.ended() == -signal.SIGKILL
    found = await dispatches(tmp_path, "task-1")
    assert set(found) == set(PENDING)

    assert await (await start()).post("task-1") == 200
    await all_handled(tmp_path)
    assert runs(tmp_path)[-1] == found["note"].attempt + 1


async def test_killed_after_the_reply_before_a_handler_ran(start: Start, tmp_path: Path) -> None:
    """F1: an acknowledged event is handled by the next process."""
    receiver = await start(WAVEHOOK_DISPATCH="external")
    assert await receiver.post("task-1") == 202
    assert await receiver.end(signal.SIGKILL) == -signal.SIGKILL
    found = await dispatches(tmp_path, "task-1")
    assert {name: one.state for name, one in found.items()} == PENDING

    await start()
    await all_handled(tmp_path)
    assert runs(tmp_path) == [1]


async def test_killed_after_the_claim_before_the_handler(start: Start, tmp_path: Path) -> None:
    """F1: a lease of a dead process runs out, and the event is handled."""
    receiver = await doomed(start, "before-handler")
    await receiver.post("task-1")
    assert await receiver.ended() == -signal.SIGKILL
    assert notes(tmp_path) == []

    await start()
    await all_handled(tmp_path)
    assert runs(tmp_path) == [2]
    assert [a.outcome for a in await attempts(tmp_path, "task-1", "note")] == ["lost", "done"]


async def test_killed_after_the_handler_before_the_settle(start: Start, tmp_path: Path) -> None:
    """F25: it runs again, with the same key, and those after it run after that."""
    receiver = await doomed(start, "after-handler")
    await receiver.post("task-1")
    assert await receiver.ended() == -signal.SIGKILL
    assert runs(tmp_path) == [1]

    await start()
    await all_handled(tmp_path)
    assert runs(tmp_path, "note") == [1, 2]
    assert runs(tmp_path, "tell") == [1]


async def test_killed_halfway_through_a_handler(start: Start, tmp_path: Path) -> None:
    """F25: half done, it runs again from the start, with the same key."""
    receiver = await start()
    await receiver.post("task-1", "test/deadly")
    assert await receiver.ended() == -signal.SIGKILL

    await start()
    await all_handled(tmp_path)
    found = [note for note in notes(tmp_path) if note["key"] == f"{event_id('task-1')}/deadly"]
    assert [(note["step"], note["attempt"]) for note in found] == [
        ("begin", 1),
        ("begin", 2),
        ("end", 2),
    ]


async def test_a_frozen_process_comes_back_too_late(start: Start, tmp_path: Path) -> None:
    """F24: another has taken over by then; what the first one says changes nothing."""
    frozen = await start()
    assert await frozen.post("task-1", "test/slow") == 202
    await until(lambda: notes(tmp_path, "begin"))
    await freeze(frozen, tmp_path)
    other = await start()
    await all_handled(tmp_path)
    before = await dispatches(tmp_path, "task-1")

    frozen.process.send_signal(signal.SIGCONT)
    await until(lambda: frozen.told("dispatch.lost"))

    assert await dispatches(tmp_path, "task-1") == before
    assert before["slow"].result == other.pid
    rows = await attempts(tmp_path, "task-1", "slow")
    assert [(a.number, a.outcome) for a in rows] == [(1, "lost"), (2, "done")]
