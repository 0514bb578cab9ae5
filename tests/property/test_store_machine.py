"""SQLite against memory: whatever is done to both, in whatever order, they answer the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from receiver.event import Claim, Dead, Dispatch, Done, Event, Outcome, Released, RetryAt
from receiver.stores.base import Plan, Store
from receiver.stores.memory import MemoryStore
from receiver.stores.sqlite import SQLiteStore

T = TypeVar("T")

START = 1_800_000_000.0
DAY = 86_400.0
HANDLERS = ("archive", "chat", "keep")
SUBJECTS = ("s1", "s2", "s3", "s4")

subjects = st.sampled_from(SUBJECTS)
handlers = st.sampled_from(HANDLERS)
owners = st.sampled_from(("o1", "o2"))
seconds = st.sampled_from((-3600.0, -1.0, 0.0, 0.5, 1.0, 29.0, 30.0, 31.0, 3600.0))
outcomes = st.one_of(
    st.builds(Done, st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3)),
    st.builds(RetryAt, seconds, st.text()),
    st.builds(Dead, st.text()),
    st.just(Released()),
)
bodies = st.binary(max_size=20)
contexts = st.none() | st.booleans() | st.dictionaries(st.text(), st.integers(), max_size=2)


@st.composite
def plans(draw: st.DrawFn, *, closed: bool) -> Plan:
    """Handlers with those that they wait for; closed: of the plan itself, without a circle."""
    names = draw(st.lists(handlers, unique=True))
    found = {}
    for n, name in enumerate(names):
        others = names[:n] if closed else [other for other in HANDLERS if other != name]
        after = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        found[name] = tuple(after)
    return found


def by_key(claims: Iterable[Claim]) -> list[Claim]:
    """Claims of different handlers come in no order that anybody may rely on."""
    return sorted(claims, key=lambda found: found.dispatch.key)


class StoreMachine(RuleBasedStateMachine):
    """The same operations at the same time on two stores."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.memory = MemoryStore()
        self.sqlite = SQLiteStore(Path(self.folder.name) / "inbox.db")
        self.now = START
        self.cursors: dict[type[Store], int] = {}
        self.read: set[int] = set()
        self.unread: set[str] = set()

    def teardown(self) -> None:
        for store in (self.memory, self.sqlite):
            self.runner.run(store.close())
        self.runner.close()
        self.folder.cleanup()

    def both(self, ask: Callable[[Store], Awaitable[T]], order: Callable[[T], Any]) -> T:
        """Ask both, compare, and give the answer."""

        async def answers() -> tuple[T, T]:
            return await ask(self.memory), await ask(self.sqlite)

        expected, found = self.runner.run(answers())
        assert order(found) == order(expected)
        return found

    def same(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        """Both must give the same, in the same order."""
        answer: T = self.both(ask, lambda answer: answer)
        return answer

    @initialize()
    def open(self) -> None:
        for store in (self.memory, self.sqlite):
            self.runner.run(store.open())

    @rule(by=st.sampled_from((-60.0, 0.25, 1.0, 30.0, 3600.0, DAY, 31 * DAY)))
    def time_passes(self, by: float) -> None:
        self.now += by

    @rule(subject=subjects, ago=seconds, plan=plans(closed=True), body=bodies, context=contexts)
    def add(self, subject: str, ago: float, plan: Plan, body: bytes, context: Any) -> None:
        event = Event(
            id=f"test:{subject}",
            source="test",
            type="prediction.failed" if subject == "s1" else "prediction.completed",
            subject=subject,
            context=context,
            body=body,
            received_at=self.now - ago,
        )
        if not self.same(lambda store: store.add(event, plan)).duplicate:
            self.unread.add(event.id)

    @rule(
        target=leases,
        owner=owners,
        limits=st.dictionaries(handlers, st.integers(0, 3)),
        lease=st.sampled_from((1.0, 30.0)),
        rates=st.dictionaries(handlers, st.sampled_from((1 / 60, 0.5, 1.0, 2.0, 3.0))),
    )
    def claim(
        self, owner: str, limits: dict[str, int], lease: float, rates: dict[str, float]
    ) -> Any:
        claims = self.both(lambda store: store.claim(owner, limits, lease, self.now, rates), by_key)
        return multiple(*(found.dispatch for found in by_key(claims)))

    @rule(dispatches=st.lists(leases, max_size=3), owner=owners)
    def extend(self, dispatches: list[Dispatch], owner: str) -> None:
        self.same(lambda store: store.extend(dispatches, owner, 30.0, self.now))

    @rule(dispatch=leases, outcome=outcomes)
    def settle(self, dispatch: Dispatch, outcome: Outcome) -> None:
        self.settle_as(str(dispatch.owner), dispatch, outcome)

    @rule(dispatch=leases, outcome=outcomes, owner=owners)
    def settle_as(self, owner: str, dispatch: Dispatch, outcome: Outcome) -> None:
        if isinstance(outcome, RetryAt):
            outcome = RetryAt(self.now + outcome.at, outcome.error)
        self.same(lambda store: store.settle(dispatch, owner, outcome, self.now))

    @rule(handler=handlers, after=seconds)
    def pause(self, handler: str, after: float) -> None:
        self.same(lambda store: store.pause(handler, self.now + after))

    @rule(subject=subjects, handler=handlers)
    def retry(self, subject: str, handler: str) -> None:
        self.same(lambda store: store.retry(f"test:{subject}", handler, self.now))

    @rule(subject=subjects, plan=plans(closed=False))
    def redeliver(self, subject: str, plan: Plan) -> None:
        self.same(lambda store: store.redeliver(f"test:{subject}", plan, self.now))

    @rule(ago=st.sampled_from((-1.0, 0.0, 60.0, DAY, 29 * DAY)))
    def purge(self, ago: float) -> None:
        self.same(lambda store: store.purge(before=self.now - ago, now=self.now))
        left = self.same(lambda store: store.find([f"test:{subject}" for subject in SUBJECTS]))
        self.unread &= left.keys()

    @rule()
    def restart(self) -> None:
        """What is stored does not live in the object."""
        self.runner.run(self.sqlite.close())
        self.sqlite = SQLiteStore(self.sqlite.path)
        self.runner.run(self.sqlite.open())

    @rule(limit=st.integers(1, 3), type=st.sampled_from((None, "prediction.completed")))
    def read_in_pages(self, limit: int, type: str | None) -> None:
        async def pages(store: Store) -> list[Any]:
            found: list[Any] = []
            before = None
            while page := await store.events(limit=limit, before=before, type=type):
                found.append([(listed.event, listed.dispatches) for listed in page])
                before = page[-1].seq
            return found

        self.same(pages)

    @rule(limit=st.integers(1, 3))
    def read_on(self, limit: int) -> None:
        """A reader of each store that keeps the last number is given every event once."""

        async def news(store: Store) -> list[Any]:
            found: list[Any] = []
            after = self.cursors.get(type(store), 0)
            while page := await store.since(after, limit=limit):
                found += [(listed.seq, listed.event, listed.dispatches) for listed in page]
                after = page[-1].seq
            self.cursors[type(store)] = after
            return found

        for seq, event, _ in self.same(news):
            assert seq not in self.read
            self.read.add(seq)
            self.unread.discard(event.id)
        assert not self.unread

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        async def seen(store: Store) -> list[Any]:
            return [
                [(listed.event, listed.dispatches) for listed in await store.events()],
                [await store.event(f"test:{subject}") for subject in SUBJECTS],
                await store.find([f"test:{subject}" for subject in (*SUBJECTS, "nobody")]),
                await store.since(0),
                await store.last_seq(),
                [await store.dispatches(f"test:{subject}") for subject in SUBJECTS],
                [await store.attempts(f"test:{subject}") for subject in SUBJECTS],
                [await store.next_due([handler]) for handler in HANDLERS],
                await store.next_due(HANDLERS),
                await store.dead(),
                await store.stats(),
            ]

        self.same(seen)


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStores = StoreMachine.TestCase
