"""What many share on PostgreSQL: limits and places, news of changes, a pooler, and growth."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any

import pytest

from submitter.errors import LedgerUnavailable
from submitter.ledger import postgres
from submitter.ledger.base import LimitReached, Limits
from submitter.ledger.postgres import PostgresLedger
from submitter.ledger.rows import COLUMNS, MUTABLE_COLUMNS
from submitter.storage import migrations
from tests.contract.test_ledger_notify import FAR, Ear
from tests.contract.test_ledger_processes import PROCESSES, start, told
from tests.support.opening import postgres_ledger
from tests.support.postgres_pooler import pooled
from tests.support.postgres_schemas import connected, fresh_schema
from tests.support.proxy import proxy
from tests.support.submissions import (
    MODEL,
    NOW,
    UNLIMITED,
    accepted,
    intended,
    intent,
    only,
    result,
)

STORED = 30_000


@pytest.fixture
async def place() -> AsyncIterator[tuple[str, str]]:
    """A server's address, and a schema that is not there yet."""
    async with fresh_schema() as found:
        yield found


def elsewhere(url: str) -> str:
    """The same database as one of another process would have it: with no news between them."""
    return f"{url}?application_name=elsewhere"


async def listening(ledger: PostgresLedger) -> tuple[Ear, Callable[[], None]]:
    """One who waits, after the first look."""
    ear = Ear()
    end = ledger.subscribe(ear.wake)
    await ear.next()
    return ear, end


async def test_of_parallel_intents_of_processes_one_is_fresh(place: tuple[str, str]) -> None:
    """Promise 1, F43: three processes that start at once on no schema share forty keys."""
    processes = [await start("intend", "#".join(place), n * 13, 40) for n in range(PROCESSES)]

    fresh = Counter(chain.from_iterable([await told(process) for process in processes]))

    assert fresh == {f"k{n}": 1 for n in range(40)}


async def test_limits_hold_for_all_processes_together(place: tuple[str, str]) -> None:
    """Promise 1: seven a minute are seven, whoever asks."""
    processes = [await start("crowd", "#".join(place), f"p{n}", 7) for n in range(PROCESSES)]

    assert sum([await told(process) for process in processes]) == 7


async def test_a_reader_misses_no_place_while_processes_write(place: tuple[str, str]) -> None:
    """Promises 4, 5: each is taken once; who remembers the last place has seen all before it."""
    async with postgres_ledger(*place) as ledger:
        await asyncio.gather(*(intended(ledger, f"k{n}") for n in range(60)))
        processes = [await start("take", "#".join(place), "", 1) for _ in range(PROCESSES)]

        seen: list[int] = []
        async with asyncio.timeout(60):
            while len(seen) < 60:
                seen += [entry.place for entry in await ledger.finished(seen[-1] if seen else 0)]
        taken = Counter(chain.from_iterable([await told(process) for process in processes]))

        assert seen == list(range(1, 61))
        assert taken == {f"k{n}": 1 for n in range(60)}


async def test_places_come_in_the_order_of_commits(place: tuple[str, str]) -> None:
    """Promise 4: who began later does not end first, however many write at once."""
    url, schema = place
    async with postgres_ledger(*place) as one, postgres_ledger(elsewhere(url), schema) as two:
        for n in range(4):
            await accepted(one, f"k{n}", f"t{n}")
        async with connected(url) as other, other.transaction():
            await other.execute(f'SELECT FROM "{schema}".ledger_head FOR UPDATE')
            finishing = [
                asyncio.ensure_future(each.finish([result(f"t{n}")], NOW))
                for n, each in enumerate((one, two))
            ]
            await asyncio.wait(finishing, timeout=0.05)
            assert await one.finished(0) == []
        await asyncio.gather(*finishing)

        assert [entry.place for entry in await one.finished(0)] == [1, 2]


async def test_two_ledgers_on_one_schema_see_each_other(place: tuple[str, str]) -> None:
    """Limits, pauses and results are the schema's, not the object's."""
    async with postgres_ledger(*place) as one, postgres_ledger(*place) as two:
        await accepted(one)

        assert await two.intend(intent("k2"), Limits(in_flight=1), NOW) == LimitReached(None)
        assert [entry.key for entry in await two.finish([result()], NOW)] == ["k1"]
        assert await one.last_place() == 1
        await two.pause(NOW + 9)
        assert await one.intend(intent("k2"), UNLIMITED, NOW) == LimitReached(NOW + 9)


async def test_two_schemas_know_nothing_of_each_other(place: tuple[str, str]) -> None:
    """One database serves several, each with its own entries and its own news."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(postgres_ledger(*place, poll=FAR))
        other_place = await stack.enter_async_context(fresh_schema())
        two = await stack.enter_async_context(postgres_ledger(*other_place, poll=FAR))
        ear, _ = await listening(one)
        other, _ = await listening(two)
        await accepted(two)
        await other.next()
        assert await one.find(["k1"]) == {}
        await accepted(one)
        await ear.next()


async def test_others_are_heard_without_looking(place: tuple[str, str]) -> None:
    """A change of another process is told by the server."""
    url, schema = place
    async with (
        postgres_ledger(*place, poll=FAR) as one,
        postgres_ledger(elsewhere(url), schema) as two,
    ):
        ear, end = await listening(one)
        async with connected(url) as other:
            await other.execute(f"NOTIFY {postgres.channel(schema)}, 'nonsense'")
        await intended(two)
        await ear.next()
        await only(one)
        end()


async def test_a_listener_that_was_cut_off_looks(place: tuple[str, str]) -> None:
    """F20: what was told meanwhile is found by the next look, which also listens again."""
    url, schema = place
    async with proxy(url) as network, postgres_ledger(network.url, schema, poll=0.01) as one:
        ear, end = await listening(one)
        network.refusing = True
        network.cut()
        # Whoever is woken asks, and is told what is wrong.
        await ear.next()
        with pytest.raises(LedgerUnavailable):
            await one.last_place()
        async with postgres_ledger(url, schema) as two:
            await intended(two)
        network.refusing = False
        async with asyncio.timeout(30):
            while True:
                await ear.next()
                try:
                    await only(one)
                    break
                except LedgerUnavailable:
                    continue
        end()


async def test_the_watch_ends_with_the_last_who_waits(place: tuple[str, str]) -> None:
    """F45: nothing looks at the database where nobody waits."""
    async with postgres_ledger(*place) as ledger:
        assert ledger._notifier._task is None
        _, end_first = await listening(ledger)
        end_second = ledger.subscribe(lambda: None)
        task = ledger._notifier._task
        assert task is not None
        end_first()
        end_first()
        assert not task.cancelling()
        end_second()
        async with asyncio.timeout(30):
            await asyncio.wait([task])
        assert ledger._notifier._task is None

        again = Ear()
        ledger.subscribe(again.wake)
        await intended(ledger)
        await again.next()


async def test_closing_ends_the_subscriptions(place: tuple[str, str]) -> None:
    """A ledger that is closed calls nobody, though others in its process live on."""
    async with postgres_ledger(*place, poll=FAR) as one, postgres_ledger(*place, poll=FAR) as two:
        ear, end = await listening(two)
        other = Ear()
        one.subscribe(other.wake)
        await two.close()
        before = ear.count
        await intended(one)
        await other.next()
        end()

        assert ear.count == before


async def test_behind_a_pooler(place: tuple[str, str]) -> None:
    """Each transaction may meet another connection: nothing is left on one, or looked for there."""
    url, schema = place
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(pooled(url))
        one = await stack.enter_async_context(
            postgres_ledger(between, schema, pooler=True, poll=0.01)
        )
        two = await stack.enter_async_context(postgres_ledger(url, schema))
        ear, end = await listening(one)
        keys = [f"k{n}" for n in range(9)]
        await asyncio.gather(*(accepted(one, key, f"t-{key}") for key in keys))
        await asyncio.gather(*(one.finish([result(f"t-{key}")], NOW) for key in keys))
        found = await asyncio.gather(*(only(one, key) for key in keys))
        assert sorted(entry.place for entry in found) == list(range(1, 10))
        assert found == await asyncio.gather(*(only(two, key) for key in keys))
        await intended(two, "k10")
        async with asyncio.timeout(30):
            while "k10" not in await one.find(["k10"]):
                await ear.next()
        end()


async def test_a_pooler_s_news_are_heard(place: tuple[str, str]) -> None:
    """Who works behind a pooler is heard at once by who does not."""
    url, schema = place
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(pooled(url))
        one = await stack.enter_async_context(postgres_ledger(*place, poll=FAR))
        two = await stack.enter_async_context(postgres_ledger(between, schema, pooler=True))
        ear, _ = await listening(one)
        await intended(two)
        await ear.next()


FILL = f"""
INSERT INTO {{schema}}.ledger_entry (
  key, model, input, digest, until, state, tries, sent_at, context, webhook, task_id, guessed,
  accepted_at, expected_at, ask_at, asks, status, ended_at, place, prediction, delivered)
SELECT 'k' || n, '{MODEL}', '{{}}', 'd', n, CASE WHEN n % 1000 = 0 THEN 'accepted' ELSE 'finished' END,
       1, n, 'null', true, 't' || n, false, n, n, CASE WHEN n % 1000 = 0 THEN n END, 0,
       CASE WHEN n % 1000 = 0 THEN 'created' ELSE 'completed' END,
       CASE WHEN n % 1000 <> 0 THEN n END, CASE WHEN n % 1000 <> 0 THEN n ELSE 0 END, '{{}}',
       n % 1000 <> 1
  FROM generate_series(1, {STORED}) AS n
"""  # noqa: E501

PLANS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "load": ("ledger_entry_key", (["k1"], ["t1"])),
    "room": ("ledger_entry_sent", (10, 3, STORED - 60.0, STORED + 60.0)),
    "find": ("ledger_entry_key", (["k1"],)),
    "find_tasks": ("ledger_entry_task", (["t1"],)),
    "open_entries": ("ledger_entry_", (10,)),
    "finished": ("ledger_entry_place", (STORED - 50, 10)),
    "to_finish": ("ledger_entry_key", (["k1"], ["t1"], [True])),
    "due": ("ledger_entry_due", (NOW, 10)),
    "due_of": ("ledger_entry_key", (NOW, 10, ["k1"])),
    "undelivered": ("ledger_entry_undelivered", (NOW, 10)),
    "durations": ("ledger_entry_completed", (MODEL, 10)),
    "overdue": ("ledger_entry_expected", (NOW,)),
    "uploaded": ("ledger_upload_pkey", ("d1", 0.0)),
    "purge_entries": ("ledger_entry_ended", (NOW, 10)),
    "purge_uploads": ("ledger_upload_pkey", (NOW, 10)),
    "change": ("ledger_entry_key", tuple([None] for _ in MUTABLE_COLUMNS)),
}


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_no_cost_grows_with_what_is_stored(place: tuple[str, str], mode: str) -> None:
    """Every statement finds its rows by an index, with tens of thousands stored: plans say so."""
    url, schema = place
    sql = postgres.statements(schema)
    async with postgres_ledger(*place), connected(url) as connection:
        await connection.execute(FILL.replace("{schema}", f'"{schema}"'))
        await connection.execute(
            f'INSERT INTO "{schema}".ledger_upload '
            f"SELECT 'd' || n, 'u', n FROM generate_series(1, {STORED}) AS n"
        )
        await connection.execute(f'VACUUM ANALYZE "{schema}".ledger_entry')
        await connection.execute(f'VACUUM ANALYZE "{schema}".ledger_upload')
        await connection.execute(f"SET plan_cache_mode = {mode}")
        for name, (index, values) in PLANS.items():
            plan = "\n".join(
                row[0] for row in await connection.fetch(f"EXPLAIN {sql[name]}", *values)
            )
            assert index in plan, f"{name}:\n{plan}"
            assert "Seq Scan on ledger_" not in plan, f"{name}:\n{plan}"


def test_the_columns_are_those_of_the_schema() -> None:
    """Rows are read by their place, so the order is written once."""
    table = (
        migrations.scripts("submitter.ledger", "postgres")[0][1]
        .partition("ledger_entry (")[2]
        .partition(");")[0]
    )
    names = [line.split()[0] for line in table.splitlines() if line.startswith("  ")]

    assert [name for name in names if name != "CHECK"] == list(COLUMNS)
    assert set(MUTABLE_COLUMNS) < set(COLUMNS)
