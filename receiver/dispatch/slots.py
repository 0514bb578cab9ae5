"""One handler's places in one process, and its rate: how many dispatches it may claim now."""

from __future__ import annotations

from receiver.handlers.base import Installed
from receiver.stores.rate_limit import NEVER, believed, free, spent


class ConcurrencySlots:
    """Counts what runs, and what this process has started.

    A place is free when its handler has ended: what comes next is claimed while the outcome is
    recorded. As many again may be on their way to the store, and no more where it is away. The
    store holds the rate over all processes; here it is known when asking would be in vain.

    Args:
        installed: the handler.
    """

    def __init__(self, installed: Installed) -> None:
        self.installed = installed
        self.running = 0
        self._held = 0
        self._next_at = NEVER

    @property
    def rate(self) -> float | None:
        """Starts a second, where that may be what keeps the next one back."""
        return self.installed.rate if self.running < self.installed.concurrency else None

    def free(self, now: float) -> int:
        """How many dispatches may start at `now` (Unix seconds)."""
        concurrency = self.installed.concurrency
        places = min(concurrency - self.running, 2 * concurrency - self._held)
        if self.installed.rate is not None:
            self._next_at = believed(self._next_at, self.installed.rate, now)
            places = min(places, free(self._next_at, self.installed.rate, now))
        return places

    def start(self, now: float) -> None:
        """One begins."""
        self.running += 1
        self._held += 1
        if self.installed.rate is not None:
            self._next_at = spent(self._next_at, self.installed.rate, now, 1)

    def end(self) -> None:
        """A handler has ended."""
        self.running -= 1

    def release(self) -> None:
        """An outcome is recorded, or will not be."""
        self._held -= 1

    def wait(self, now: float) -> float:
        """Seconds until the rate lets the next one start, if no other process starts one."""
        return max(0.0, self._next_at - now)
