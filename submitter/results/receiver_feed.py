"""Hears from a receiver on another machine which tasks have ended: its `/api`, by long poll."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from submitter.api.transport import tls_context
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Ledger, Result
from submitter.prediction import JSON, Prediction

LONG_POLL_S = 30
"""Seconds that the receiver holds a question for which it has no answer yet."""

LONG_POLL_MARGIN_S = 15.0
"""Seconds beyond it until the question counts as lost."""

MIN_RETRY_INTERVAL_S, MAX_RETRY_INTERVAL_S = 0.5, 30.0
"""Seconds between two tries while the receiver is away: at first, and at most."""

EMPTY_RESPONSE_PAUSE_S = 0.5
"""Seconds between an empty answer and the next question, should the receiver not hold it."""

MAX_CONCURRENT_QUERIES = 8
"""Questions about single tasks at one time."""

log = logging.getLogger("wavehook.submitter")


class _FeedFailed(Exception):
    """The receiver gave no answer that can be used; the text is safe to log."""


class ReceiverFeed:
    """Writes results that the receiver has into the ledger.

    Args:
        public_url: of the receiver.
        token: its admin token.
        ledger: open.
        transport: how requests travel; as of `Calls`.
        clock: Unix seconds.
    """

    def __init__(
        self,
        public_url: str,
        token: str,
        ledger: Ledger,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = f"{public_url.rstrip('/')}/api/predictions"
        self._ledger = ledger
        self._clock = clock
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=tls_context(),
            # As bytes: an error about a text that no header can hold would quote it.
            headers={b"authorization": b"Bearer " + token.encode()},
            timeout=httpx.Timeout(10.0, read=LONG_POLL_S + LONG_POLL_MARGIN_S),
            follow_redirects=False,
        )
        self._cursor: int | None = None
        self._listening = asyncio.Event()
        self._wanted: dict[str, None] = {}
        self._asked = asyncio.Event()
        self._silent = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    def ask(self, task_id: str) -> None:
        """Have it looked whether a task has ended already, while `run` runs."""
        self._wanted[task_id] = None
        self._asked.set()

    async def run(self) -> None:
        """Hear of all results from now on, until cancelled."""
        await asyncio.gather(self._forever(self._listen), self._forever(self._look))

    async def _forever(self, work: Callable[[], Any]) -> None:
        failures = 0
        while True:
            try:
                await work()
                failures, self._silent = 0, False
            except (_FeedFailed, LedgerUnavailable) as error:
                if not self._silent:
                    # Said once; results still come by the ledger and by reconcile.
                    self._silent = True
                    log.warning("feed.failed url=%s error=%s", self._url, error)
                failures += 1
                await asyncio.sleep(
                    min(MIN_RETRY_INTERVAL_S * 2.0 ** min(failures - 1, 10), MAX_RETRY_INTERVAL_S)
                )

    async def _listen(self) -> None:
        """Hear of the next results."""
        began = self._cursor is None
        query = {} if began else {"after": str(self._cursor), "wait": str(LONG_POLL_S)}
        page = await self._get(self._url, query)
        items, cursor = page.get("predictions"), page.get("cursor")
        if not isinstance(items, list) or not isinstance(cursor, int) or isinstance(cursor, bool):
            raise _FeedFailed("its answer has no list and cursor")
        await self._record(items)
        self._cursor = cursor
        self._listening.set()
        if not items and not began:
            await asyncio.sleep(EMPTY_RESPONSE_PAUSE_S)

    async def _look(self) -> None:
        """Ask about single tasks, whose results came before anybody heard of results."""
        # What comes after this is heard of; so nothing falls between.
        await self._listening.wait()
        await self._asked.wait()
        some = list(self._wanted)[:MAX_CONCURRENT_QUERIES]
        pages = await asyncio.gather(*map(self._of_task, some), return_exceptions=True)
        await self._record([page for page in pages if isinstance(page, dict)])
        for task_id, page in zip(some, pages, strict=True):
            if not isinstance(page, BaseException):
                self._wanted.pop(task_id, None)
        if not self._wanted:
            self._asked.clear()
        for page in pages:
            if isinstance(page, BaseException):
                raise page

    async def _of_task(self, task_id: str) -> Mapping[str, JSON]:
        return await self._get(f"{self._url}/{quote(task_id, safe='')}", {})

    async def _record(self, items: Sequence[Any]) -> None:
        found = [_prediction(item) for item in items if isinstance(item, dict)]
        results = [
            Result(prediction, delivered=True)
            for prediction in found
            if prediction is not None and prediction.terminal
        ]
        if results:
            await self._ledger.finish(results, self._clock())

    async def _get(self, url: str, query: Mapping[str, str]) -> Mapping[str, JSON]:
        """An answer's object; empty where there is nothing yet."""
        try:
            answer = await self._http.get(url, params=query)
            body = answer.json() if answer.status_code == 200 else None
        # RecursionError: depth that no JSON of ours has.
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            raise _FeedFailed(type(error).__name__) from None
        if answer.status_code == 204:
            return {}
        if isinstance(body, dict):
            return body
        asks = ": is WAVEHOOK_ADMIN_TOKEN the receiver's?"
        advice = asks if answer.status_code in (401, 404) else ""
        raise _FeedFailed(f"HTTP {answer.status_code}{advice}")


def _prediction(item: dict[str, JSON]) -> Prediction | None:
    """The result; of one whose body was purged, how it ended."""
    return Prediction.parse(item.get("prediction")) or Prediction.parse(
        {name: item.get(name) for name in ("id", "status", "model")}
    )
