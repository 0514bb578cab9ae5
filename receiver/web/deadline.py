"""One time limit for many reads at once, with one timer instead of one for each of them.

All of them have the same limit, so they pass it in the order in which they began.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Deadline:
    """Cancels the tasks that are still between `begin` and `end` after a while.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Start the clock of a task that is about to wait."""
        loop = task.get_loop()
        self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep, loop)

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Stop it; True where the task was cancelled by it, and the cancellation is undone."""
        self._due.pop(task, None)
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._sweep, loop)
                return
            del self._due[task]
            self._late.add(task)
            task.cancel()
