"""Notices changes of one schema: this process's at once, others' when told, or by looking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from submitter.errors import LedgerUnavailable
from submitter.ledger.wakes import Wakes

_news: WeakValueDictionary[tuple[str, str], News] = WeakValueDictionary()


def news(url: str, schema: str) -> News:
    """What this process has heard of a schema, whichever of its ledgers heard it."""
    found = _news.get((url, schema))
    if found is None:
        found = _news[url, schema] = News()
    return found


class News:
    """Wakes all in this process who wait for changes.

    Attributes:
        wakes: they.
    """

    def __init__(self) -> None:
        self.wakes = Wakes()
        self._seen: int | None = None

    def told(self, changes: int) -> None:
        """The counter of changes was seen; an unknown one, or another, is news."""
        if changes != self._seen:
            self._seen = changes
            self.wakes.fire()


class Watch:
    """Looks for changes, as long as anybody waits for them.

    Args:
        news: told of them.
        look: asks for the counter of changes.
        poll: seconds between two looks.
    """

    def __init__(self, news: News, look: Callable[[], Awaitable[int]], poll: float) -> None:
        self._news = news
        self._look = look
        self._poll = poll
        self._ends: set[Callable[[], None]] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Wake from now on, on the event loop that runs here; returns what ends it."""
        end_wake = self._news.wakes.add(wake)
        self._ends.add(end_wake)
        if self._task is None or self._task.done() or self._task.get_loop().is_closed():
            self._task = asyncio.create_task(self._run(), name="wavehook-ledger-watch")

        def end() -> None:
            end_wake()
            self._ends.discard(end_wake)
            if not self._ends:
                self._stop()

        return end

    def close(self) -> None:
        """End all that was added."""
        while self._ends:
            self._ends.pop()()
        self._stop()

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                self._news.told(await self._look())
            except LedgerUnavailable:
                # Whoever is woken asks the ledger, and is told what is wrong with it.
                self._news.wakes.fire()
            await asyncio.sleep(self._poll)
