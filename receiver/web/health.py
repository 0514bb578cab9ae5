"""Health endpoints for the platform: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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
    from submitter.ledger.base import Ledger


class Health:
    """The endpoints `/livez`, `/readyz` and, if there are metrics, `/metrics`.

    Args:
        store: asked whether it would accept an event.
        lifecycle: opens the store on the first request.
        ledger: counts overdue results; None leaves that gauge out.
        metrics: the counters to serve.
        hooks: called when the store fails.
        clock: Unix seconds.
        timeout: seconds for the store to answer.
    """

    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        *,
        ledger: Ledger | None = None,
        metrics: Metrics | None,
        hooks: Sequence[Hook],
        clock: Callable[[], float],
        timeout: float,
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._ledger = ledger
        self._metrics = metrics
        self._hooks = tuple(hooks)
        self._clock = clock
        self._timeout = timeout

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        routes = [Route("/livez", self.livez), Route("/readyz", self.readyz)]
        if self._metrics is not None:
            routes.append(Route("/metrics", self.scrape(self._metrics)))
        return routes

    async def livez(self, _: Request) -> Response:
        """200 while the event loop runs: a restart would not cure anything else."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """200 if the store would accept an event now, else 503."""
        if self._lifecycle.closing:
            raise HTTPException(503, "The receiver is shutting down")
        try:
            async with asyncio.timeout(self._timeout):
                await self._lifecycle.ensure()
                await self._store.ping()
        except (StoreError, TimeoutError) as error:
            self._emit(error)
            title = "The store cannot accept an event now; the log says why"
            raise HTTPException(503, title, {"retry-after": "5"}) from None
        return JSONResponse({"status": "ready"})

    def scrape(self, metrics: Metrics) -> Callable[[Request], object]:
        """The endpoint for Prometheus; it answers even if the store fails."""

        async def endpoint(_: Request) -> Response:
            stats: Stats | None = None
            overdue = None
            try:
                async with asyncio.timeout(self._timeout):
                    await self._lifecycle.ensure()
                    stats = await self._store.stats()
                    if self._ledger is not None:
                        overdue = await self._ledger.overdue(self._clock())
            except (StoreError, LedgerUnavailable, TimeoutError) as error:
                self._emit(error)
            text = metrics.render(stats, self._clock(), overdue=overdue)
            return Response(text, media_type=metrics.content_type)

        return endpoint

    def _emit(self, error: Exception) -> None:
        for hook in self._hooks:
            hook(TelemetryEvent("store.failed", error=describe(error)))
