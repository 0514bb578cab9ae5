"""Feed of results from a receiver on another machine: long poll of its `/api`."""

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
"""Seconds that the receiver holds a request until there is a new result."""

LONG_POLL_MARGIN_S = 15.0
"""Seconds beyond `LONG_POLL_S` until the request times out."""

MIN_RETRY_INTERVAL_S, MAX_RETRY_INTERVAL_S = 0.5, 30.0
"""Seconds between retries while the receiver is unavailable: the first, and the longest."""

EMPTY_RESPONSE_PAUSE_S = 0.5
"""Seconds after an empty response, in case the receiver does not hold requests."""

MAX_CONCURRENT_QUERIES = 8
"""Concurrent requests for single tasks."""

log = logging.getLogger("wavehook.submitter")


class _FeedFailed(Exception):
    """The receiver sent no usable response; the text is safe to log."""


class ReceiverFeed:
    """Copies the receiver's results into the ledger.

    Args:
        public_url: of the receiver.
        token: its admin token.
        ledger: open.
        transport: of httpx, for tests and proxies.
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
            # As bytes: httpx would quote a text that is invalid in a header in its error.
            headers={b"authorization": b"Bearer " + token.encode()},
            timeout=httpx.Timeout(10.0, read=LONG_POLL_S + LONG_POLL_MARGIN_S),
            follow_redirects=False,
        )
        self._cursor: int | None = None
        self._listening = asyncio.Event()
        self._to_query: dict[str, None] = {}
        self._queue_filled = asyncio.Event()
        self._failure_logged = False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def ask(self, task_id: str) -> None:
        """Query the receiver for one task, which may have ended before `run` began."""
        self._to_query[task_id] = None
        self._queue_filled.set()

    async def run(self) -> None:
        """Copy all new results, until cancelled."""
        await asyncio.gather(
            self._retry_forever(self._listen), self._retry_forever(self._query_tasks)
        )

    async def _retry_forever(self, work: Callable[[], Any]) -> None:
        failures = 0
        while True:
            try:
                await work()
                failures, self._failure_logged = 0, False
            except (_FeedFailed, LedgerUnavailable) as error:
                if not self._failure_logged:
                    # Logged once; the ledger and the reconciler still find results.
                    self._failure_logged = True
                    log.warning("feed.failed url=%s error=%s", self._url, error)
                failures += 1
                await asyncio.sleep(
                    min(MIN_RETRY_INTERVAL_S * 2.0 ** min(failures - 1, 10), MAX_RETRY_INTERVAL_S)
                )

    async def _listen(self) -> None:
        """Copy the next page of results."""
        began = self._cursor is None
        query = {} if began else {"after": str(self._cursor), "wait": str(LONG_POLL_S)}
        page = await self._get(self._url, query)
        items, cursor = page.get("predictions"), page.get("cursor")
        if not isinstance(items, list) or not isinstance(cursor, int) or isinstance(cursor, bool):
            raise _FeedFailed("its response has no list and cursor")
        await self._record(items)
        self._cursor = cursor
        self._listening.set()
        if not items and not began:
            await asyncio.sleep(EMPTY_RESPONSE_PAUSE_S)

    async def _query_tasks(self) -> None:
        """Query single tasks, which may have ended before the first long poll."""
        # Only once `_listen` has a cursor, so that no result falls between.
        await self._listening.wait()
        await self._queue_filled.wait()
        some = list(self._to_query)[:MAX_CONCURRENT_QUERIES]
        pages = await asyncio.gather(*map(self._of_task, some), return_exceptions=True)
        await self._record([page for page in pages if isinstance(page, dict)])
        for task_id, page in zip(some, pages, strict=True):
            if not isinstance(page, BaseException):
                self._to_query.pop(task_id, None)
        if not self._to_query:
            self._queue_filled.clear()
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
        """The object of a response; empty for 204, when there is no result yet."""
        try:
            response = await self._http.get(url, params=query)
            body = response.json() if response.status_code == 200 else None
        # RecursionError: the JSON is nested too deeply.
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            raise _FeedFailed(type(error).__name__) from None
        if response.status_code == 204:
            return {}
        if isinstance(body, dict):
            return body
        hint = ": is WAVEHOOK_ADMIN_TOKEN the receiver's?"
        advice = hint if response.status_code in (401, 404) else ""
        raise _FeedFailed(f"HTTP {response.status_code}{advice}")


def _prediction(item: dict[str, JSON]) -> Prediction | None:
    """The result; if its body was purged, only its status."""
    return Prediction.parse(item.get("prediction")) or Prediction.parse(
        {name: item.get(name) for name in ("id", "status", "model")}
    )
