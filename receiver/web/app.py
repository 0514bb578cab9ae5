"""The app, assembled from built parts: nothing is global, and importing does no work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from receiver.errors import StoreError
from receiver.handlers.retry import describe
from receiver.intake import Intake
from receiver.stores.base import Store
from receiver.telemetry import Hook, TelemetryEvent
from receiver.telemetry.log import logger
from receiver.web.health import Health, Overdue
from receiver.web.ingest import Ingest, SegmentRoute
from receiver.web.lifecycle import Dispatcher, Lifecycle
from receiver.web.middleware import Requests

if TYPE_CHECKING:
    from receiver.telemetry.metrics import Metrics

INLINE_LIMIT = 100
"""Dispatches that are run before one reply, at most."""

GIVE_BACK = 5.0
"""Seconds beyond the deadline for the store to take back what has not ended."""


def create_app(
    *,
    intake: Intake,
    store: Store,
    lifecycle: Lifecycle | None = None,
    dispatcher: Dispatcher | None = None,
    ledger: Overdue | None = None,
    hooks: Sequence[Hook] = (),
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.time,
    max_body: int = 1 << 20,
    body_deadline: float = 10.0,
    dispatch: Literal["background", "inline", "external"] = "background",
    inline_deadline: float = 5.0,
    follow: Callable[[], Awaitable[object]] | None = None,
    grace: float = 20.0,
    ready_limit: float = 2.0,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Assemble the receiver.

    Args:
        intake: takes deliveries in.
        store: the inbox of `intake`; opened by the app at the first need.
        lifecycle: opens and starts all parts; None: of store and dispatcher, with `grace`.
        dispatcher: runs handlers; None where no process of ours does.
        ledger: says at every scrape how many results are overdue.
        hooks: are told of every delivery, and of a store that fails.
        metrics: served at `/metrics`, and a hook without being named among `hooks`.
        clock: Unix seconds.
        max_body: bytes.
        body_deadline: seconds for a body to arrive.
        dispatch: `background` runs the dispatcher with the app, `inline` before every reply,
            `external` not at all.
        inline_deadline: seconds that handlers have before a reply.
        follow: awaited before a reply after which the process may halt; see `Ingest`.
        grace: seconds that running handlers have at a stop.
        ready_limit: seconds that the store has to say that it is well.
        routes: more of them, such as the dashboard's; their errors are answered in the same form.
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
            async with asyncio.timeout(inline_deadline + GIVE_BACK):
                return await inline.drain(limit=INLINE_LIMIT, deadline=inline_deadline)

    ingest = Ingest(
        intake,
        lifecycle,
        hooks=hooks,
        clock=clock,
        max_body=max_body,
        body_deadline=body_deadline,
        drain=drain,
        follow=follow,
    )
    health = Health(
        store,
        lifecycle,
        ledger=ledger,
        metrics=metrics,
        hooks=hooks,
        clock=clock,
        limit=ready_limit,
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
            SegmentRoute("/webhooks/", ("source",), ingest),
            SegmentRoute("/webhooks/", ("source", "token"), ingest),
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
    """Starlette without its own error layers.

    They wrap `send` twice and make a Request of every delivery; `Requests` does what they do.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """The router, what was added by `add_middleware`, and `Requests` around all."""
        app: ASGIApp = self.router
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return Requests(app)
