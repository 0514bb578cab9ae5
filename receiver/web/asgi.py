"""`uvicorn receiver.web.asgi:app`: the receiver, built from the environment at its first need.

Every target of `deploy/` that has an ASGI app has this one.
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

RETRY_AFTER = 60.0
"""Seconds between two tries to build: a secret that could not be fetched may be there later."""

TOLD = "The receiver does not run; its own log line says why"
"""For the server's log: the reason stands in ours already, and upstream would send a traceback."""


class LazyApp:
    """An app that is built when the server first calls it.

    Settings that cannot work are logged, and end the start where the server runs lifespan; where
    it does not, requests are told 503, and the next try is made after a while.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._app: Starlette | None = None
        self._clock = clock
        self._again_at = float("-inf")

    async def stop(self) -> None:
        """Stop what was built."""
        if self._app is not None:
            await self._app.state.lifecycle.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        app = self._app or self._build()
        if app is not None:
            if scope["type"] == "lifespan":
                send = _briefly(send)
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": TOLD})
        elif scope["type"] == "http":
            scope[LOG_FIELDS_KEY] = {"request_id": None}
            title = "The receiver is not configured; its log says what to do"
            headers = [(b"retry-after", b"%d" % RETRY_AFTER)]
            await send_problem(scope, send, 503, title, headers=headers, close=True)
        else:
            await send({"type": "websocket.close", "code": 1013})

    def _build(self) -> Starlette | None:
        if self._clock() < self._again_at:
            return None
        try:
            from receiver import build

            self._app = build.app()
        except SettingsError as error:
            _log().error("settings.refused", faults=list(error.faults))
        except Exception as error:  # noqa: BLE001 - the server would answer 500 to every sender
            _log().error("build.failed", exc_info=error)
        self._again_at = self._clock() + RETRY_AFTER
        return self._app


def _log() -> FilteringBoundLogger:
    """The log, also where the building ended before its level was read."""
    if not structlog.is_configured():
        configure()
    return logger()


def _briefly(send: Send) -> Send:
    async def brief(message: Message) -> None:
        await send({**message, "message": TOLD} if "message" in message else message)

    return brief


app = OneLoop(LazyApp)
