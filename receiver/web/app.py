"""The ASGI app, assembled from built parts: no globals, and no work at import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from receiver.errors import StoreError
from receiver.handlers.retry import describe
from receiver.intake import Intake
from receiver.stores.base import Store
from receiver.telemetry import Hook, TelemetryEvent
from receiver.telemetry.log import logger
from receiver.web.health import Health
from receiver.web.ingest import Ingest
from receiver.web.lifecycle import Lifecycle
from receiver.web.middleware import RequestMiddleware

if TYPE_CHECKING:
    from receiver.dispatch.dispatcher import Dispatcher
    from receiver.telemetry.metrics import Metrics
    from submitter.ledger.base import Ledger

MAX_INLINE_DISPATCHES = 100
"""Dispatches that run before one response."""

RELEASE_TIMEOUT_S = 5.0
"""Default of `create_app`'s `release_timeout`."""


def create_app(
    *,
    intake: Intake,
    store: Store,
    lifecycle: Lifecycle | None = None,
    dispatcher: Dispatcher | None = None,
    ledger: Ledger | None = None,
    hooks: Sequence[Hook] = (),
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.time,
    max_body: int = 1 << 20,
    body_deadline: float = 10.0,
    dispatch: Literal["background", "inline", "external"] = "background",
    inline_deadline: float = 5.0,
    release_timeout: float = RELEASE_TIMEOUT_S,
    flush_ledger: Callable[[], Awaitable[object]] | None = None,
    grace: float = 20.0,
    ready_timeout: float = 2.0,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Assemble the receiver's ASGI app.

    Args:
        intake: accepts deliveries.
        store: the inbox of `intake`; the app opens it on the first request that needs it.
        lifecycle: opens and starts all parts; None makes one of store, dispatcher and `grace`.
        dispatcher: runs handlers; None if this process runs none.
        ledger: counts overdue results at every scrape of the metrics.
        hooks: called for every delivery and every failure of the store.
        metrics: served at `/metrics`; also called as a hook.
        clock: Unix seconds.
        max_body: bytes.
        body_deadline: seconds for a body to arrive.
        dispatch: `background` runs the dispatcher beside the requests, `inline` before every
            response, `external` not at all.
        inline_deadline: seconds for handlers before a response.
        release_timeout: seconds past `inline_deadline` for the store to take unfinished
            dispatches back.
        flush_ledger: as for `Ingest`.
        grace: seconds for running handlers at a stop.
        ready_timeout: seconds for the store to answer a health check.
        routes: more routes, such as the API's; their errors are answered in the same form.
    """
    if metrics is not None and metrics not in hooks:
        hooks = (*hooks, metrics)
    lifecycle = lifecycle or Lifecycle(
        store, dispatcher, grace, background=dispatch == "background"
    )
    drain: Callable[[], Awaitable[object]] | None = None
    if dispatch == "inline" and dispatcher is not None:
        inline = dispatcher

        async def drain() -> int:
            async with asyncio.timeout(inline_deadline + release_timeout):
                return await inline.drain(limit=MAX_INLINE_DISPATCHES, deadline=inline_deadline)

    ingest = Ingest(
        intake,
        lifecycle,
        hooks=hooks,
        clock=clock,
        max_body=max_body,
        body_deadline=body_deadline,
        drain=drain,
        flush_ledger=flush_ledger,
    )
    health = Health(
        store,
        lifecycle,
        ledger=ledger,
        metrics=metrics,
        hooks=hooks,
        clock=clock,
        timeout=ready_timeout,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await lifecycle.begin()
        except StoreError as error:
            for hook in hooks:
                hook(TelemetryEvent("store.failed", error=describe(error)))
            raise
        except Exception as error:
            logger().error("start.failed", exc_info=error)
            raise
        try:
            yield
        finally:
            try:
                await lifecycle.stop()
            except Exception as error:
                logger().error("stop.failed", exc_info=error)
                raise

    app = _Receiver(
        routes=[
            Route("/webhooks/{source}", ingest, methods=["POST"]),
            Route("/webhooks/{source}/{token}", ingest, methods=["POST"]),
            *health.routes(),
            *routes,
        ],
        lifespan=lifespan,
    )
    # A redirect would send a delivery, and its token, to wherever the Host header points.
    app.router.redirect_slashes = False
    app.state.lifecycle = lifecycle
    return app


class _Receiver(Starlette):
    """Starlette with `RequestMiddleware` in place of its own two error middlewares.

    Those wrap `send` twice and make a Request of every delivery: 5 µs of the app's 56 µs
    (tests/bench/test_ack.py, the app alone).
    """

    def build_middleware_stack(self) -> ASGIApp:
        """The router, the middleware of `add_middleware`, and `RequestMiddleware` around them."""
        app: ASGIApp = self.router
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return RequestMiddleware(app)
