"""`wavehook serve` that kills itself at a named point, as the first argument says."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

from receiver.build import build
from receiver.cli.server import Server, listen
from receiver.config import read
from receiver.event import Claim, Dispatch, Event, Outcome, Receipt
from receiver.stores.base import Plan
from receiver.stores.sqlite import SQLiteStore
from receiver.telemetry.log import configure


def die() -> None:
    """No handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(SQLiteStore):
    """A store that does not live past its point."""

    def __init__(self, path: Path, point: str) -> None:
        super().__init__(path, on_connect=self._trace_statements)
        self._point = point
        self._written = False

    async def add(self, event: Event, plan: Plan) -> Receipt:
        receipt = await super().add(event, plan)
        if self._point == "after-commit":
            die()
        return receipt

    async def claim(
        self,
        owner: str,
        limits: Mapping[str, int],
        lease: float,
        now: float,
        rates: Mapping[str, float] = {},
    ) -> list[Claim]:
        claims = await super().claim(owner, limits, lease, now, rates)
        if claims and self._point == "before-handler":
            die()
        return claims

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        if self._point == "after-handler":
            die()
        return await super().settle(dispatch, owner, outcome, now)

    def _trace_statements(self, connection: sqlite3.Connection) -> None:
        if self._point in {"before-commit", "in-migration"}:
            connection.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        self._written |= "INSERT INTO event " in statement
        if self._written and statement == "COMMIT":
            die()
        if self._point == "in-migration" and statement.startswith("PRAGMA user_version ="):
            die()


def main(point: str) -> None:
    """Serve until then."""
    settings = read(os.environ, cwd=Path.cwd()).settings
    configure()
    assert settings.database_path is not None
    parts = build(settings, store=Doomed(settings.database_path, point))
    with listen(settings.host, settings.port) as listener:
        Server(parts, listener).serve_until_signal()


main(sys.argv[1])
