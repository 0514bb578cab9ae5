"""SQLite against memory: whatever is said to both, in whatever order, they answer the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from submitter.ledger.base import Intent, Ledger, Limits, Result
from submitter.ledger.memory import MemoryLedger
from submitter.ledger.sqlite import SQLiteLedger
from submitter.prediction import JSON, Prediction

T = TypeVar("T")

START = 1_800_000_000.0
KEYS = ("k1", "k2", "k3", "task:t1")
TASKS = ("t1", "t2", "t3")
MODELS = ("m1", "m2")
FAR = 1e12

keys = st.sampled_from(KEYS)
tasks = st.sampled_from(TASKS)
models = st.sampled_from(MODELS)
seconds = st.sampled_from((-3600.0, -60.0, -1.0, 0.0, 0.5, 1.0, 59.0, 60.0, 61.0, 3600.0))
some = st.none() | st.integers(1, 3)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def prediction(task_id: str, status: str, extra: JSON = None, **fields: JSON) -> Prediction:
    """A task as the API tells of it."""
    found = Prediction.parse({"id": task_id, "status": status, "extra": extra, **fields})
    assert found is not None
    return found


results = st.builds(
    lambda task, status, key, delivered, extra: Result(
        prediction(task, status, extra), key, delivered
    ),
    tasks,
    st.sampled_from(("completed", "completed", "failed")),
    st.none() | keys,
    st.booleans(),
    json,
)


class LedgerMachine(RuleBasedStateMachine):
    """The same words at the same time to two ledgers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.memory = MemoryLedger()
        self.stored = self.make()
        self.now = START

    def make(self) -> Ledger:
        """The one that is compared with memory; again and again on the same database."""
        return SQLiteLedger(Path(self.folder.name) / "ledger.db")

    def teardown(self) -> None:
        for ledger in (self.memory, self.stored):
            self.runner.run(ledger.close())
        self.runner.close()
        self.folder.cleanup()

    def same(self, ask: Callable[[Ledger], Awaitable[T]]) -> T:
        """Ask both, compare, and give the answer."""

        async def answers() -> tuple[T, T]:
            return await ask(self.memory), await ask(self.stored)

        expected, found = self.runner.run(answers())
        assert found == expected
        return found

    @initialize()
    def open(self) -> None:
        for ledger in (self.memory, self.stored):
            self.runner.run(ledger.open())

    @rule(by=st.sampled_from((-30.0, 0.25, 1.0, 30.0, 60.0, 3600.0)))
    def time_passes(self, by: float) -> None:
        self.now += by

    @rule(
        key=keys,
        model=models,
        input=st.dictionaries(st.text(), json, max_size=2),
        context=json,
        until=seconds,
        webhook=st.booleans(),
        cost=st.none() | st.floats(0, 9),
        rate=some,
        in_flight=some,
    )
    def intend(
        self,
        key: str,
        model: str,
        input: dict[str, JSON],
        context: JSON,
        until: float,
        webhook: bool,
        cost: float | None,
        rate: int | None,
        in_flight: int | None,
    ) -> None:
        intent = Intent(key, model, input, "d", self.now + until, context, webhook, cost)
        limits = Limits(rate, in_flight)
        self.same(lambda ledger: ledger.intend(intent, limits, self.now))

    @rule(key=keys, model=models)
    def intend_without_limits(self, key: str, model: str) -> None:
        intent = Intent(key, model, {}, "d", self.now + 60)
        self.same(lambda ledger: ledger.intend(intent, Limits(), self.now))

    @rule(key=keys, task=tasks, after=seconds, guessed=st.booleans())
    def accept(self, key: str, task: str, after: float, guessed: bool) -> None:
        async def accept(ledger: Ledger) -> Any:
            try:
                return await ledger.accept(
                    key,
                    prediction(task, "created"),
                    self.now,
                    expected_at=self.now + after,
                    guessed=guessed,
                )
            except KeyError as error:
                return repr(error)

        self.same(accept)

    @rule(task=tasks, after=seconds, webhook=st.booleans(), dated=st.booleans())
    def import_task(self, task: str, after: float, webhook: bool, dated: bool) -> None:
        fields: dict[str, JSON] = {"created_at": "2027-01-15T08:00:00.5Z"} if dated else {}
        found = prediction(task, "processing", model="m1", **fields)
        self.same(
            lambda ledger: ledger.import_task(
                found, self.now, expected_at=self.now + after, webhook=webhook
            )
        )

    @rule(key=keys, after=seconds, reason=st.text(max_size=3))
    def mark_unknown(self, key: str, after: float, reason: str) -> None:
        self.same(
            lambda ledger: ledger.mark_unknown(key, reason, self.now, ask_at=self.now + after)
        )

    @rule(key=keys)
    def reject(self, key: str) -> None:
        self.same(lambda ledger: ledger.reject(key, "no", self.now))

    @rule(several=st.lists(results, max_size=3))
    def finish(self, several: list[Result]) -> None:
        self.same(lambda ledger: ledger.finish(several, self.now))

    @rule(
        hold=st.sampled_from((1.0, 60.0)),
        limit=st.integers(1, 3),
        only=st.none() | st.lists(keys, unique=True),
    )
    def due(self, hold: float, limit: int, only: list[str] | None) -> None:
        self.same(lambda ledger: ledger.due(self.now, hold=hold, limit=limit, keys=only))

    @rule(key=keys, after=seconds)
    def postpone(self, key: str, after: float) -> None:
        self.same(lambda ledger: ledger.postpone(key, self.now + after))

    @rule(after=seconds)
    def pause(self, after: float) -> None:
        self.same(lambda ledger: ledger.pause(self.now + min(after, 60.0)))

    @rule(digest=st.sampled_from("ab"), url=st.sampled_from("xy"))
    def upload(self, digest: str, url: str) -> None:
        self.same(lambda ledger: ledger.upload(digest, url, self.now))

    @rule(ago=st.sampled_from((-1.0, 0.0, 60.0, 3600.0)))
    def purge(self, ago: float) -> None:
        self.same(lambda ledger: ledger.purge(self.now - ago))

    @rule()
    def restart(self) -> None:
        """What is stored does not live in the object."""
        self.runner.run(self.stored.close())
        self.stored = self.make()
        self.runner.run(self.stored.open())

    @rule(limit=st.integers(1, 3), after=st.integers(0, 3), back=seconds)
    def read_some(self, limit: int, after: int, back: float) -> None:
        async def some(ledger: Ledger) -> list[Any]:
            return [
                await ledger.open_entries(limit=limit),
                await ledger.finished(after, limit=limit),
                await ledger.undelivered(self.now + back, limit=limit),
                await ledger.durations("m1", limit=limit),
                await ledger.overdue(self.now + back),
                await ledger.uploaded("a", after=self.now + back),
            ]

        self.same(some)

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        async def seen(ledger: Ledger) -> list[Any]:
            return [
                await ledger.find([*KEYS, "task:t2", "task:t3", "no"]),
                await ledger.find_tasks([*TASKS, "no"]),
                await ledger.open_entries(),
                await ledger.finished(0),
                await ledger.last_place(),
                await ledger.undelivered(FAR),
                [await ledger.durations(model) for model in MODELS],
                await ledger.overdue(FAR),
                [await ledger.uploaded(digest, after=0) for digest in "ab"],
            ]

        _, _, _, finished, last, *_ = self.same(seen)
        places = [entry.place for entry in finished]
        assert places == sorted(set(places))
        assert last >= max(places, default=0)


LedgerMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLedgers = LedgerMachine.TestCase
