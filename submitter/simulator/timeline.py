"""Life's time beside the time of the clock: it goes faster, and it may jump ahead.

Only life jumps. The clock stays as it is, so that the moments which the API shows, and the times
that webhooks are signed with, hold for whoever asks.
"""

from __future__ import annotations

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
