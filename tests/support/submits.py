"""What the suites of the client share: a simulator, a ledger, and clients of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from submitter.client import WaveSpeed
from submitter.ledger.base import Entry, Ledger, State
from submitter.ledger.sqlite import SQLiteLedger
from submitter.settings import SubmitSettings
from submitter.simulator import Faults, Simulator
from tests.support.cuttable_transport import IMAGE, KLING, Wire

INPUT: dict[str, Any] = {"prompt": "waves", "image": IMAGE}
OVERDUE = 0.6
"""Seconds: all waits towards the API are short."""


@dataclass
class World:
    """A simulator and a ledger; clients are made as they are needed."""

    sim: Simulator
    ledger: Ledger
    wire: Wire = field(default_factory=Wire)

    def client(self, *, overdue: float = OVERDUE, timeout: float = 20.0, **more: Any) -> WaveSpeed:
        given = {"ledger": self.ledger, "transport": self.wire, **more}
        settings = SubmitSettings(overdue=overdue, submit_timeout=timeout)
        return WaveSpeed(
            **{"api_key": "key", "base_url": self.sim.url, "settings": settings, **given}
        )

    def spoil(self, faults: str) -> None:
        """From now on this goes wrong."""
        self.sim.set_faults(Faults.parse(faults))

    async def entry(self, key: str) -> Entry:
        return (await self.ledger.find([key]))[key]

    async def state(self, key: str) -> State:
        return (await self.entry(key)).state

    @property
    def posts(self) -> int:
        """Billed requests that went out."""
        return self.wire.count("POST", KLING)

    @property
    def questions(self) -> int:
        """Questions about a task."""
        return self.wire.count("GET", "/result")


@asynccontextmanager
async def surroundings(ledger: Ledger, **options: Any) -> AsyncIterator[World]:
    async with Simulator(**{"speed": 2000.0, **options}) as sim:
        yield World(sim, ledger)


@asynccontextmanager
async def on_file(path: Path) -> AsyncIterator[SQLiteLedger]:
    """A ledger of another process; a client closes none that it is given."""
    ledger = SQLiteLedger(path)
    try:
        yield ledger
    finally:
        await ledger.close()


class Gate:
    """Holds billed requests back, or their answers, until it is opened."""

    def __init__(self, *, answer: httpx.Response | None = None) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.answer = answer

    async def meddle(self, request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(KLING):
            return None
        self.reached.set()
        await self.opened.wait()
        return self.answer


def refusing(status: int, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body or {"message": "no"}, headers=named)
