"""One handler's places and rate in one process: how many dispatches it may claim now."""

from __future__ import annotations

from receiver.handlers.base import Installed


class Lane:
    """Counts what runs and meters what starts.

    The rate is a token bucket that holds one second's worth, one at least: after a pause a
    handler does not catch up in a burst (F26).

    Args:
        installed: the handler.
        now: Unix seconds.
    """

    def __init__(self, installed: Installed, now: float) -> None:
        self.installed = installed
        self.running = 0
        self._burst = max(1.0, installed.rate or 1.0)
        self._tokens = self._burst
        self._counted_at = now

    def free(self, now: float) -> int:
        """How many dispatches may start at `now` (Unix seconds)."""
        places = self.installed.concurrency - self.running
        if self.installed.rate is not None:
            # A clock that steps back adds nothing, and takes nothing away (F6).
            elapsed = max(0.0, now - self._counted_at)
            self._tokens = min(self._burst, self._tokens + elapsed * self.installed.rate)
            self._counted_at = now
            places = min(places, int(self._tokens))
        return places

    def start(self) -> None:
        """One begins."""
        self.running += 1
        self._tokens -= 1

    def end(self) -> None:
        """One has ended."""
        self.running -= 1

    def wait(self) -> float | None:
        """Seconds until the rate lets the next one start; None where the rate is no hindrance."""
        rate = self.installed.rate
        if rate is None or self._tokens >= 1 or self.running >= self.installed.concurrency:
            return None
        return (1 - self._tokens) / rate
