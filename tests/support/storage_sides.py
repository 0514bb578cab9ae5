"""Inbox and ledger on PostgreSQL, as one suite uses both: each is a port over the same engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from receiver.errors import SettingsError, StoreUnavailable
from receiver.stores.postgres import PostgresStore
from submitter.errors import BadSettings, LedgerUnavailable
from submitter.ledger.postgres import PostgresLedger
from tests.support.events import PLAN, event
from tests.support.submissions import intended

NEVER_S = 3600.0
"""A poll that wakes nobody: only LISTEN does."""


class InboxSide:
    """The inbox: a write adds an event."""

    unavailable: type[Exception] = StoreUnavailable
    bad_settings: type[Exception] = SettingsError

    def __init__(self, url: str, **options: Any) -> None:
        self.port = PostgresStore(url, **options)
        self.pool = self.port._pool

    async def open(self) -> None:
        await self.port.open()

    async def write(self, name: str) -> None:
        await self.port.add(event(name), PLAN)

    async def stored(self) -> set[str | None]:
        return {each.event.subject for each in await self.port.events()}

    def subscribe(self, wake: Callable[[], None]) -> None:
        self.port.subscribe(wake)


class LedgerSide:
    """The ledger: a write records an intent."""

    unavailable: type[Exception] = LedgerUnavailable
    bad_settings: type[Exception] = BadSettings

    def __init__(self, url: str, **options: Any) -> None:
        self.port = PostgresLedger(url, poll=NEVER_S, **options)
        self.pool = self.port._pool

    async def open(self) -> None:
        await self.port.open()

    async def write(self, name: str) -> None:
        await intended(self.port, name)

    async def stored(self) -> set[str | None]:
        return {each.key for each in await self.port.open_entries()}

    def subscribe(self, wake: Callable[[], None]) -> None:
        self.port.subscribe(wake)


Side = InboxSide | LedgerSide
SIDES: dict[str, type[InboxSide | LedgerSide]] = {"inbox": InboxSide, "ledger": LedgerSide}
