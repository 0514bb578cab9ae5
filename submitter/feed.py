"""Hears from a receiver on another machine which tasks have ended: its `/api`, by long poll."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote

import httpx

from submitter.ledger.base import Ledger, Result
from submitter.prediction import JSON, Prediction

WAIT = 30
"""Seconds that the receiver holds a question for which it has no answer yet."""

MARGIN = 15.0
"""Seconds beyond it until the question counts as lost."""

SLOWEST = 30.0
"""Seconds between two tries at most, while the receiver is away."""

log = logging.getLogger("wavehook.submitter")


class Feed:
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
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(10.0, read=WAIT + MARGIN),
            follow_redirects=False,
        )
        self._silent = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def ask(self, task_id: str) -> None:
        """Look whether a task has ended already; an answer that does not come is no error."""
        found = await self._get(f"{self._url}/{quote(task_id, safe='')}", {})
        if found is not None:
            await self._record([found])

    async def run(self) -> None:
        """Hear of all results from now on, until cancelled."""
        cursor: int | None = None
        failures = 0
        while True:
            query = {} if cursor is None else {"after": str(cursor), "wait": str(WAIT)}
            page = await self._get(self._url, query)
            if page is None:
                failures += 1
                await asyncio.sleep(min(0.5 * 2.0 ** min(failures, 10), SLOWEST))
                continue
            failures = 0
            items = page.get("predictions")
            await self._record(items if isinstance(items, list) else [])
            given = page.get("cursor")
            cursor = given if isinstance(given, int) else cursor

    async def _record(self, items: list[Any]) -> None:
        found = [
            Prediction.parse(item.get("prediction")) for item in items if isinstance(item, dict)
        ]
        results = [
            Result(prediction, delivered=True)
            for prediction in found
            if prediction is not None and prediction.terminal
        ]
        if results:
            await self._ledger.finish(results, self._clock())

    async def _get(self, url: str, query: Mapping[str, str]) -> dict[str, JSON] | None:
        """An answer's object; None where there is nothing yet, or no answer."""
        reason = ""
        try:
            answer = await self._http.get(url, params=query)
            if answer.status_code == 204:
                return None
            if answer.status_code == 200:
                body = answer.json()
                if isinstance(body, dict):
                    self._silent = False
                    return cast("dict[str, JSON]", body)
            reason = f"HTTP {answer.status_code}"
            if answer.status_code in (401, 404):
                reason += ": is WAVEHOOK_ADMIN_TOKEN the receiver's?"
        except (httpx.HTTPError, ValueError) as error:
            reason = type(error).__name__
        if not self._silent:
            # Said once; results still come by the ledger and by reconcile.
            self._silent = True
            log.warning("feed.failed url=%s error=%s", self._url, reason)
        return None
