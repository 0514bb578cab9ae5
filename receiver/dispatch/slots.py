"""Concurrency slots of one handler in one process, and its rate as far as this process knows it."""

from __future__ import annotations

from receiver.handlers.base import Installed
from receiver.stores.rate_limit import NEVER, available_permits, clamp_clock_step, consume


class ConcurrencySlots:
    """Counts a handler's runs, and says how many dispatches may be claimed for it.

    A slot is free again when the handler has ended: the next dispatch is claimed while the outcome
    is being recorded. At most as many outcomes again may wait for the store, so that a store that
    is away stops the claims. The store enforces the rate over all processes; the copy here saves
    claims that it would refuse.

    Args:
        installed: the handler.
    """

    def __init__(self, installed: Installed) -> None:
        self.installed = installed
        self.running = 0
        self._unsettled = 0
        self._next_at = NEVER

    @property
    def rate(self) -> float | None:
        """Starts a second, if the rate and not the concurrency limits the next start."""
        return self.installed.rate if self.running < self.installed.concurrency else None

    def available(self, now: float) -> int:
        """Dispatches that may start at `now` (Unix seconds)."""
        concurrency = self.installed.concurrency
        slots = min(concurrency - self.running, 2 * concurrency - self._unsettled)
        if self.installed.rate is not None:
            self._next_at = clamp_clock_step(self._next_at, self.installed.rate, now)
            slots = min(slots, available_permits(self._next_at, self.installed.rate, now))
        return slots

    def start(self, now: float) -> None:
        """Count a run that starts."""
        self.running += 1
        self._unsettled += 1
        if self.installed.rate is not None:
            self._next_at = consume(self._next_at, self.installed.rate, now, 1)

    def end(self) -> None:
        """Count a handler that has ended; its outcome is not recorded yet."""
        self.running -= 1

    def settle(self) -> None:
        """Count an outcome that is recorded, or never will be."""
        self._unsettled -= 1

    def rate_wait(self, now: float) -> float:
        """Seconds until the rate permits the next start, if no other process starts one."""
        return max(0.0, self._next_at - now)
