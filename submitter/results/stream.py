"""Streams of the results of one client's submits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from submitter.errors import SubmissionUnknown
from submitter.ledger.base import Entry
from submitter.results.wait import WaiterRegistry

MAX_REMEMBERED_KEYS = 100_000
"""Submits that are remembered for a stream that may never be asked for; the oldest go first."""


class ResultStreams:
    """Keys that the client has submitted, and its open streams."""

    def __init__(self) -> None:
        self._mine: dict[str, None] = {}
        self._on_their_way = 0
        self._streams: set[_ResultStream] = set()

    @contextlib.contextmanager
    def sending(self, key: str) -> Iterator[None]:
        """Track a submit in flight; a lost response counts too, because its task may exist."""
        self._on_their_way += 1
        try:
            yield
            _keep(self._mine, key)
        except SubmissionUnknown:
            _keep(self._mine, key)
            raise
        finally:
            self._on_their_way -= 1
            for stream in self._streams:
                stream.news.put_nowait(key)

    async def stream(self, waiting: WaiterRegistry, *, follow: bool) -> AsyncGenerator[Entry, None]:
        """As `WaveSpeed.stream`."""
        stream = _ResultStream(self._mine, waiting)
        with contextlib.ExitStack() as exits:
            if follow:
                exits.enter_context(waiting.following(stream.news.put_nowait))
            self._streams.add(stream)
            exits.callback(self._streams.discard, stream)
            exits.callback(stream.close)
            for key in self._mine:
                stream.wait_for(key)
            while follow or stream.waits or self._on_their_way or not stream.news.empty():
                item = await stream.news.get()
                if isinstance(item, str):
                    stream.wait_for(item)
                elif isinstance(item, Entry):
                    if stream.is_new(item):
                        yield item
                elif follow or item is None:
                    return
                else:
                    raise item


class _ResultStream:
    """One reader. Its news are keys that were sent, and entries that have ended."""

    def __init__(self, mine: dict[str, None], waiting: WaiterRegistry) -> None:
        self.news: asyncio.Queue[str | Entry | BaseException | None] = asyncio.Queue()
        self.waits: dict[str, asyncio.Future[Entry]] = {}
        self._mine = mine
        self._waiting = waiting
        self._given: dict[str, None] = {}

    def wait_for(self, key: str) -> None:
        if key in self._mine and key not in self.waits and key not in self._given:
            self.waits[key] = self._waiting.ended(key)
            self.waits[key].add_done_callback(self._take)

    def is_new(self, entry: Entry) -> bool:
        """Whether an entry is a result that was not given yet."""
        self.waits.pop(entry.key, None)
        self._mine.pop(entry.key, None)
        if entry.prediction is None or entry.key in self._given:
            return False
        _keep(self._given, entry.key)
        return True

    def close(self) -> None:
        for future in self.waits.values():
            future.cancel()

    def _take(self, done: asyncio.Future[Entry]) -> None:
        if not done.cancelled():
            self.news.put_nowait(done.exception() or done.result())


def _keep(keys: dict[str, None], key: str) -> None:
    keys[key] = None
    if len(keys) > MAX_REMEMBERED_KEYS:
        del keys[next(iter(keys))]
