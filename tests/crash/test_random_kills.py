"""SIGKILL at random moments under load, over and over, on one database."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from random import Random

from receiver.event import DispatchState
from tests.crash.conftest import Start
from tests.crash.receiving import DATABASE, Receiver, all_handled, event_id, inbox, notes

KILLS = 20
SENDERS = 8
HANDLERS = {"note", "tell"}


class Senders:
    """A vendor's side: sends every webhook until somebody acknowledges it, and some again."""

    def __init__(self, random: Random) -> None:
        self.acknowledged: set[str] = set()
        self.wrong: list[tuple[str, int]] = []
        self.unsure: list[str] = []
        self._random = random
        self._sent = 0

    async def load(self, receiver: Receiver) -> None:
        """Send until the receiver is gone."""
        await asyncio.gather(*(self._send(receiver) for _ in range(SENDERS)))

    async def _send(self, receiver: Receiver) -> None:
        while await self.one(receiver, self._next()):
            pass

    async def one(self, receiver: Receiver, subject: str) -> bool:
        """Send one; False where the connection broke."""
        status = await receiver.post(subject)
        if status is None:
            self.unsure.append(subject)
            return False
        if status == 200 or (status == 202 and subject not in self.acknowledged):
            self.acknowledged.add(subject)
        else:
            self.wrong.append((subject, status))
        return True

    def _next(self) -> str:
        if self.unsure and self._random.random() < 0.5:
            return self.unsure.pop()
        if self.acknowledged and self._random.random() < 0.2:
            return self._random.choice(sorted(self.acknowledged))
        self._sent += 1
        return f"task-{self._sent}"


async def test_random_kills_lose_nothing(start: Start, tmp_path: Path, seed: int) -> None:
    """F1, F2, F25: each acknowledged event is there once, and each handler ran at least once."""
    random = Random(seed)
    senders = Senders(random)
    for _ in range(KILLS):
        receiver = await start()
        loading = asyncio.ensure_future(senders.load(receiver))
        await asyncio.sleep(random.uniform(0.01, 0.25))
        assert await receiver.end(signal.SIGKILL) == -signal.SIGKILL
        await loading

    survivor = await start()
    for subject in set(senders.unsure):
        assert await senders.one(survivor, subject)
    await all_handled(tmp_path)

    assert senders.wrong == []
    assert len(senders.acknowledged) > KILLS
    ids = {event_id(subject) for subject in senders.acknowledged}
    ran = Counter(note["key"] for note in notes(tmp_path))
    assert set(ran) == {f"{id}/{name}" for id in ids for name in HANDLERS}
    async with inbox(tmp_path) as store:
        stored = await store.events(limit=10 * len(ids))
    assert sorted(listed.event.id for listed in stored) == sorted(ids)
    assert all(
        listed.dispatches == dict.fromkeys(HANDLERS, DispatchState.DONE) for listed in stored
    )
    connection = sqlite3.connect(tmp_path / DATABASE)
    # Each dispatch was settled by one attempt; all others of it were lost with their process.
    rows = connection.execute(
        "SELECT sum(outcome = 'done'), sum(outcome IS NOT 'done' AND outcome IS NOT 'lost')"
        " FROM attempt GROUP BY event, handler"
    ).fetchall()
    assert set(rows) == {(1, 0)}
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
