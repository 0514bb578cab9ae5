"""PostgreSQL against memory: whatever is done to both, in whatever order, they answer the same."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from tests.property.test_store_machine import StoreMachine
from tests.support import needed
from tests.support.postgres_schemas import fresh_schema
from tests.support.postgres_server import Server


class PostgresMachine(StoreMachine):
    """The same operations, with PostgreSQL in SQLite's place."""

    def __init__(self) -> None:
        needed.postgres()
        super().__init__()
        self.stack = AsyncExitStack()
        url, schema = self.runner.run(self.stack.enter_async_context(fresh_schema()))
        self.server = Server(url, schema)
        self.sqlite: Any = self.server.store()

    def teardown(self) -> None:
        self.runner.run(self.sqlite.close())
        self.runner.run(self.stack.aclose())
        super().teardown()

    @rule()
    def restart(self) -> None:
        """What is stored does not live in the object."""
        self.runner.run(self.sqlite.close())
        self.sqlite = self.server.store()
        self.runner.run(self.sqlite.open())


PostgresMachine.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestPostgres = PostgresMachine.TestCase
