"""Streams of the results of one client's submits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from submitter.errors import SubmissionUnknown
from submitter.ledger.base import Entry
from submitter.results.wait import WaiterRegistry

MAX_REMEMBERED_KEYS = 100_000
"""Submits that are remembered for a later stream; the oldest are forgotten first."""


class ResultStreams:
    """Streams of one client, and the keys that it has submitted."""

    def __init__(self) -> None:
        self._submitted: dict[str, None] = {}
        self._in_flight = 0
        self._streams: set[_ResultStream] = set()

    @contextlib.contextmanager
    def sending(self, key: str) -> Iterator[None]:
        """Track a submit in flight; a lost response counts too, because its task may exist."""
        self._in_flight += 1
        try:
            yield
            _keep(self._submitted, key)
        except SubmissionUnknown:
            _keep(self._submitted, key)
            raise
        finally:
            self._in_flight -= 1
            for stream in self._streams:
                stream.news.put_nowait(key)

    async def stream(self, waiters: WaiterRegistry, *, follow: bool) -> AsyncGenerator[Entry, None]:
        """As `WaveSpeed.stream`."""
        stream = _ResultStream(self._submitted, waiters)
        with contextlib.ExitStack() as exits:
            if follow:
                exits.enter_context(waiters.following(stream.news.put_nowait))
            self._streams.add(stream)
            exits.callback(self._streams.discard, stream)
            exits.callback(stream.close)
            for key in self._submitted:
                stream.wait_for(key)
            while follow or stream.open_waits or self._in_flight or not stream.news.empty():
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
    """One open stream. Its queue `news` holds keys just submitted and entries just ended."""

    def __init__(self, submitted: dict[str, None], waiters: WaiterRegistry) -> None:
        self.news: asyncio.Queue[str | Entry | BaseException | None] = asyncio.Queue()
        self.open_waits: dict[str, asyncio.Future[Entry]] = {}
        self._submitted = submitted
        self._waiters = waiters
        self._yielded: dict[str, None] = {}

    def wait_for(self, key: str) -> None:
        if key in self._submitted and key not in self.open_waits and key not in self._yielded:
            self.open_waits[key] = self._waiters.ended(key)
            self.open_waits[key].add_done_callback(self._take)

    def is_new(self, entry: Entry) -> bool:
        """Whether an entry is a result that was not yielded yet."""
        self.open_waits.pop(entry.key, None)
        self._submitted.pop(entry.key, None)
        if entry.prediction is None or entry.key in self._yielded:
            return False
        _keep(self._yielded, entry.key)
        return True

    def close(self) -> None:
        for future in self.open_waits.values():
            future.cancel()

    def _take(self, done: asyncio.Future[Entry]) -> None:
        if not done.cancelled():
            self.news.put_nowait(done.exception() or done.result())


def _keep(keys: dict[str, None], key: str) -> None:
    keys[key] = None
    if len(keys) > MAX_REMEMBERED_KEYS:
        del keys[next(iter(keys))]
