"""What a platform asks: is it alive, is it ready, how is it doing."""

from __future__ import annotations

from asyncio import timeout
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.errors import StoreError
from receiver.handlers.retry import describe
from receiver.stores.base import Stats, Store
from receiver.telemetry import Hook, TelemetryEvent
from receiver.web.lifecycle import Lifecycle
from submitter.errors import LedgerUnavailable

if TYPE_CHECKING:
    from receiver.telemetry.metrics import Metrics


class Overdue(Protocol):
    """Knows what is overdue: the ledger."""

    async def overdue(self, now: float) -> int:
        """How many results were expected by now; see `Ledger.overdue`."""
        ...


class Health:
    """The endpoints `/livez`, `/readyz` and, where there are metrics, `/metrics`.

    Args:
        store: is asked whether it would take an event.
        lifecycle: opens the store at the first need.
        ledger: says how many results are overdue; None where nobody knows.
        metrics: what was counted.
        hooks: are told where the store does not answer.
        clock: Unix seconds.
        limit: seconds that the store has for its answer.
    """

    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        *,
        ledger: Overdue | None = None,
        metrics: Metrics | None,
        hooks: Sequence[Hook],
        clock: Callable[[], float],
        limit: float,
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._ledger = ledger
        self._metrics = metrics
        self._hooks = tuple(hooks)
        self._clock = clock
        self._limit = limit

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        routes = [Route("/livez", self.livez), Route("/readyz", self.readyz)]
        if self._metrics is not None:
            routes.append(Route("/metrics", self.scrape(self._metrics)))
        return routes

    async def livez(self, _: Request) -> Response:
        """200 while the event loop turns: a restart would not help what else is wrong."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """200 where the store would take an event now; 503 says to send nothing here."""
        if self._lifecycle.closing:
            raise HTTPException(503, "The receiver is shutting down")
        try:
            async with timeout(self._limit):
                await self._lifecycle.ensure()
                await self._store.ping()
        except (StoreError, TimeoutError) as error:
            self._tell(error)
            title = "The store would not take an event now; the log says why"
            raise HTTPException(503, title, {"retry-after": "5"}) from None
        return JSONResponse({"status": "ready"})

    def scrape(self, metrics: Metrics) -> Callable[[Request], object]:
        """The endpoint for Prometheus; it answers without the store too."""

        async def endpoint(_: Request) -> Response:
            stats: Stats | None = None
            overdue = None
            try:
                async with timeout(self._limit):
                    await self._lifecycle.ensure()
                    stats = await self._store.stats()
                    if self._ledger is not None:
                        overdue = await self._ledger.overdue(self._clock())
            except (StoreError, LedgerUnavailable, TimeoutError) as error:
                self._tell(error)
            text = metrics.render(stats, self._clock(), overdue=overdue)
            return Response(text, media_type=metrics.content_type)

        return endpoint

    def _tell(self, error: Exception) -> None:
        for hook in self._hooks:
            hook(TelemetryEvent("store.failed", error=describe(error)))
