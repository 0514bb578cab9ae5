"""SIGKILL at random and connections cut under load, on one PostgreSQL, with senders that insist.

STORM_KILLS is the number of processes that are killed: 2, among 2 receivers and 2 workers; from 5
on among 4 and 4 (CI: 10). TEST_SEED repeats the moments.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from random import Random

from receiver.event import DispatchState
from tests.crash.fleet import Fleet, keys
from tests.crash.receiving import Receiver, event_id

KILLS = int(os.environ.get("STORM_KILLS", "2"))
EACH = 4 if KILLS >= 5 else 2
SENDERS = 4
HANDLERS = ("note", "tell")


class Senders:
    """A vendor's side: sends each webhook to two receivers, until one of them acknowledges it."""

    def __init__(self, receivers: list[Receiver], random: Random) -> None:
        self.acknowledged: set[str] = set()
        self.wrong: list[tuple[str, int]] = []
        self.refused = 0
        self._receivers = receivers
        self._random = random
        self._numbers = count()
        self._ended = False

    async def load(self) -> None:
        """Send until told to end, and what was begun to its end."""
        await asyncio.gather(*(self._on_and_on() for _ in range(SENDERS)))

    def end(self) -> None:
        """Begin nothing new."""
        self._ended = True

    async def _on_and_on(self) -> None:
        while not self._ended:
            subject = f"task-{next(self._numbers)}"
            while subject not in self.acknowledged:
                two = [self._random.choice(self._receivers) for _ in range(2)]
                for status in await asyncio.gather(*(each.post(subject) for each in two)):
                    self._told(subject, status)

    def _told(self, subject: str, status: int | None) -> None:
        if status in {200, 202}:
            self.acknowledged.add(subject)
        elif status == 503:
            self.refused += 1
        elif status is not None:
            self.wrong.append((subject, status))


async def test_a_storm_loses_and_doubles_nothing(fleet: Fleet, seed: int) -> None:
    """F1, F2, F3, F20, F25: what was acknowledged is there once, and settled once by a handler."""
    random = Random(seed)
    receivers, workers = await fleet.start(EACH, EACH)
    senders = Senders(receivers, random)
    loading = asyncio.ensure_future(senders.load())
    cut = 0
    for n in range(KILLS):
        await asyncio.sleep(random.uniform(0.1, 0.5))
        cut += await fleet.cut()
        await asyncio.sleep(random.uniform(0.1, 0.5))
        killed = random.choice(workers if n % 2 else receivers)
        assert await killed.end(signal.SIGKILL) == -signal.SIGKILL
        if killed in receivers:
            receivers[receivers.index(killed)] = await fleet.receiver()
        else:
            workers[workers.index(killed)] = await fleet.worker()
    senders.end()
    await loading
    await fleet.all_handled()

    sys.stdout.write(
        f"{len(senders.acknowledged)} events, {KILLS} kills, {cut} connections cut, "
        f"{senders.refused} times 503\n"
    )
    assert senders.wrong == []
    assert cut > 0
    ids = {event_id(subject) for subject in senders.acknowledged}
    assert sorted(await fleet.stored()) == sorted(ids)
    assert {*fleet.ran()} == keys(senders.acknowledged, *HANDLERS)
    async with fleet.store() as store:
        listed = await store.events(limit=10_000)
        assert all(
            each.dispatches == dict.fromkeys(HANDLERS, DispatchState.DONE) for each in listed
        )
        for each in listed[:: max(len(listed) // 100, 1)]:
            # Each dispatch was settled by one attempt; all others were lost with their process.
            outcomes = [attempt.outcome for attempt in await store.attempts(each.event.id)]
            assert {*outcomes} - {"lost"} == {"done"}
            assert outcomes.count("done") == len(HANDLERS)
    assert "Traceback" not in fleet.words
