"""Waiting at the simulator's speed.

Life's time beside the time of the clock: it goes faster, and it may jump ahead.

Only life jumps. The clock stays as it is, so that the moments which the API shows, and the times
that webhooks are signed with, hold for whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Moment(NamedTuple):
    """A moment by the clock, and its place among the jumps.

    Attributes:
        at: Unix seconds.
        jumps: how many came before it; a clock may show one time for two moments.
    """

    at: float
    jumps: int = 0


class Timeline:
    """Says when life has come as far as something needs.

    Args:
        speed: how many times faster than the clock life goes.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._jumps: list[tuple[float, float]] = []

    def moment(self, now: float) -> Moment:
        """The present moment, at a time by the clock (Unix seconds)."""
        return Moment(now, len(self._jumps))

    def forward(self, seconds: float, now: float) -> None:
        """Let life jump ahead.

        Args:
            seconds: of life.
            now: Unix seconds.
        """
        self._jumps.append((now, seconds))

    def after(self, moment: Moment, seconds: float) -> float:
        """When some seconds of life have passed since a moment (Unix seconds)."""
        at = moment.at
        for jump_at, jump in self._jumps[moment.jumps :]:
            lived = max(jump_at - at, 0.0) * self.speed
            if lived >= seconds:
                break
            at, seconds = max(jump_at, at), seconds - lived - jump
            if seconds <= 0:
                return at
        return at + seconds / self.speed


@dataclass(slots=True)
class _Wait:
    """One wait: what ends it is a timer of its own, so that thousands cost nothing."""

    since: Moment
    seconds: float
    timer: asyncio.TimerHandle


class Pace:
    """Waits for seconds of life; made in the running loop.

    Args:
        timeline: of life.
        clock: Unix seconds.
    """

    def __init__(self, timeline: Timeline, clock: Callable[[], float]) -> None:
        self.timeline = timeline
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waits: dict[asyncio.Future[None], _Wait] = {}
        self._stopped = False

    @property
    def now(self) -> Moment:
        """The present moment."""
        return self.timeline.moment(self._clock())

    async def sleep(
        self,
        seconds: float,
        *,
        since: Moment | None = None,
        until: asyncio.Future[None] | None = None,
    ) -> None:
        """Wait for some seconds of life, or until the simulator stops, or a future is done.

        Args:
            seconds: of life.
            since: from when they count; by default, from now.
            until: what ends the wait early.
        """
        if self._stopped:
            return
        waiter, since = self._loop.create_future(), since or self.now
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
        """Let life jump ahead, and end the waits that are over by it.

        Args:
            seconds: of life.
        """
        self.timeline.forward(seconds, self._clock())
        for waiter, wait in self._waits.items():
            wait.timer.cancel()
            wait.timer = self._timer(waiter, wait.since, wait.seconds)

    def stop(self) -> None:
        """End every wait."""
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
