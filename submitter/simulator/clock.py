"""Simulated time: it runs faster than the wall clock, and it can be moved forward.

Moving it forward does not change the wall clock. The times that the API shows, and the times that
webhooks are signed with, stay right for their readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in simulated time.

    Attributes:
        at: Unix seconds.
        jumps: number of jumps before it; the wall clock shows the same time before and after one.
    """

    at: float
    jumps: int = 0


class Timeline:
    """Converts simulated seconds to wall-clock times.

    Args:
        speed: simulated seconds per second.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._jumps: list[tuple[float, float]] = []

    def moment(self, now: float) -> Moment:
        """The present moment.

        Args:
            now: Unix seconds.
        """
        return Moment(now, len(self._jumps))

    def forward(self, seconds: float, now: float) -> None:
        """Move simulated time forward.

        Args:
            seconds: simulated seconds.
            now: Unix seconds.
        """
        self._jumps.append((now, seconds))

    def after(self, moment: Moment, seconds: float) -> float:
        """Unix time at which some simulated seconds have passed since a moment."""
        at = moment.at
        for jump_at, jump in self._jumps[moment.jumps :]:
            passed = max(jump_at - at, 0.0) * self.speed
            if passed >= seconds:
                break
            at, seconds = max(jump_at, at), seconds - passed - jump
            if seconds <= 0:
                return at
        return at + seconds / self.speed


@dataclass(slots=True)
class _Wait:
    """One sleeper; each has a timer of its own, so that thousands of sleepers cost nothing."""

    since: Moment
    seconds: float
    timer: asyncio.TimerHandle


class SimClock:
    """Sleeps in simulated seconds. Create it in the running event loop.

    Args:
        timeline: simulated time.
        clock: Unix seconds.
    """

    def __init__(self, timeline: Timeline, clock: Callable[[], float]) -> None:
        self.timeline = timeline
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waits: dict[asyncio.Future[None], _Wait] = {}
        self._stopped = False

    async def sleep(
        self,
        seconds: float,
        *,
        since: Moment | None = None,
        until: asyncio.Future[None] | None = None,
    ) -> None:
        """Sleep until the time is over, the simulator stops, or a future is done.

        Args:
            seconds: simulated seconds.
            since: start of the count; by default, now.
            until: ends the sleep early.
        """
        if self._stopped:
            return
        waiter = self._loop.create_future()
        since = since or self.timeline.moment(self._clock())
        wait = _Wait(since, seconds, self._timer(waiter, since, seconds))
        self._waits[waiter] = wait
        if until:
            until.add_done_callback(lambda _: _end(waiter))
        try:
            await waiter
        finally:
            del self._waits[waiter]
            wait.timer.cancel()

    def forward(self, seconds: float) -> None:
        """Move simulated time forward, and set every sleeper's timer again.

        Args:
            seconds: simulated seconds.
        """
        self.timeline.forward(seconds, self._clock())
        for waiter, wait in self._waits.items():
            wait.timer.cancel()
            wait.timer = self._timer(waiter, wait.since, wait.seconds)

    def stop(self) -> None:
        """End every sleep, now and from now on."""
        self._stopped = True
        for waiter in self._waits:
            _end(waiter)

    def _timer(
        self, waiter: asyncio.Future[None], since: Moment, seconds: float
    ) -> asyncio.TimerHandle:
        due = self.timeline.after(since, seconds) - self._clock()
        return self._loop.call_later(max(due, 0.0), _end, waiter)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
