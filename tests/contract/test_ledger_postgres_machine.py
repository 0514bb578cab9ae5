"""PostgreSQL against memory: whatever is said to both, in whatever order, they answer the same."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, settings

from submitter.ledger.base import Ledger
from submitter.ledger.postgres import PostgresLedger
from tests.property.test_ledger_machine import LedgerMachine
from tests.support import needed
from tests.support.postgres_schemas import fresh_schema


class PostgresMachine(LedgerMachine):
    """The same words at the same time to two ledgers."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.place: tuple[str, str] | None = None
        super().__init__()

    def make(self) -> Ledger:
        if self.place is None:
            self.place = self.runner.run(self.stack.enter_async_context(fresh_schema()))
        return PostgresLedger(self.place[0], schema=self.place[1])

    def teardown(self) -> None:
        self.runner.run(self.stored.close())
        self.runner.run(self.stack.aclose())
        super().teardown()


@pytest.fixture(autouse=True)
def server() -> None:
    """Before the machine is built, so that what is missing skips it."""
    needed.postgres()


PostgresMachine.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=15,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLedgersOnPostgres = PostgresMachine.TestCase
