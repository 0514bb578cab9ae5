"""The ASGI entry point `receiver.web.asgi:app`, built from the environment on the first call.

Every target of `deploy/` that serves ASGI uses it, and so does `uvicorn receiver.web.asgi:app`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from starlette.types import Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from receiver.errors import SettingsError
from receiver.telemetry.log import configure, logger
from receiver.web.middleware import LOG_FIELDS_KEY, send_problem
from receiver.web.one_loop import OneLoop

if TYPE_CHECKING:
    from starlette.applications import Starlette

BUILD_RETRY_INTERVAL_S = 60.0
"""Seconds between two attempts to build: fetching the webhook secret may work later."""

START_FAILED = "The receiver could not start; its log says why"
"""Message for the server's log, in place of starlette's traceback: the log has the reason."""


class LazyApp:
    """An app that is built when the server first calls it.

    Faulty settings are logged. They end the start if the server runs the lifespan; otherwise
    requests get a 503, and the build is tried again after `BUILD_RETRY_INTERVAL_S`.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._app: Starlette | None = None
        self._clock = clock
        self._retry_at = float("-inf")

    async def stop(self) -> None:
        """Stop the app, if it was built."""
        if self._app is not None:
            await self._app.state.lifecycle.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        app = self._app or self._build()
        if app is not None:
            if scope["type"] == "lifespan":
                send = _without_traceback(send)
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": START_FAILED})
        elif scope["type"] == "http":
            scope[LOG_FIELDS_KEY] = {"request_id": None}
            title = "The receiver is not configured; its log says what to do"
            headers = [(b"retry-after", b"%d" % BUILD_RETRY_INTERVAL_S)]
            await send_problem(scope, send, 503, title, headers=headers, close=True)
        else:
            await send({"type": "websocket.close", "code": 1013})

    def _build(self) -> Starlette | None:
        if self._clock() < self._retry_at:
            return None
        try:
            from receiver import build

            self._app = build.app()
        except SettingsError as error:
            _log().error("settings.refused", faults=list(error.faults))
        except Exception as error:  # noqa: BLE001 - the server would send a 500 to every sender
            _log().error("build.failed", exc_info=error)
        self._retry_at = self._clock() + BUILD_RETRY_INTERVAL_S
        return self._app


def _log() -> FilteringBoundLogger:
    """The log, configured with defaults if the build failed before its settings were read."""
    if not structlog.is_configured():
        configure()
    return logger()


def _without_traceback(send: Send) -> Send:
    async def short(message: Message) -> None:
        await send({**message, "message": START_FAILED} if "message" in message else message)

    return short


app = OneLoop(LazyApp)
