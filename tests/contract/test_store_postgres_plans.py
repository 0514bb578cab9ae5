"""No step's cost grows with the number of stored events: 100,000 of them, and what a plan reads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.event import Dispatch, Done
from receiver.stores.postgres import PostgresInbox, named
from tests.support.events import DAY, LEASE, NOW, PLAN, event
from tests.support.postgres_server import Server

COUNT = 100_000
FILL = f"""
INSERT INTO event (seq, id, source, type, body, origin, occurred_at, received_at)
SELECT n, 's:' || n, 's', 'prediction.completed', '', 'webhook', {NOW}, {NOW}
  FROM generate_series(1, {COUNT}) AS n;
INSERT INTO dispatch (event, handler, state, attempt, due_at, settled_at)
SELECT n, name, CASE WHEN n % 50 = 0 THEN 'dead' WHEN n % 50 = 1 THEN 'pending' ELSE 'done' END,
       1, {NOW}, CASE WHEN n % 50 <> 1 THEN {NOW} END
  FROM generate_series(1, {COUNT}) AS n, unnest(ARRAY['keep', 'tell']) AS name;
INSERT INTO attempt (event, handler, number, owner, started_at, ended_at, outcome)
SELECT event, handler, 1, 'a', {NOW}, {NOW}, 'done' FROM dispatch;
"""
READ = """
SELECT relname, seq_scan, coalesce(idx_tup_fetch, 0) + seq_tup_read AS tuples
  FROM pg_stat_xact_user_tables
 WHERE schemaname = $1 AND relname IN ('event', 'dispatch', 'attempt')
"""
BIG = ("event", "dispatch", "attempt")


@pytest.fixture(params=[False, True], ids=["unknown", "analyzed"])
async def large(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    """Many events, with and without statistics; a connection whose plans are from before them."""
    store = await server.opened()
    connection = await server.connect()
    for table in BIG:
        # The server's own look, at whatever moment, is neither of the two.
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    # Every plan is made while the tables are empty, as in a process that runs from the beginning.
    for _ in range(7):
        for work in works(inbox(server)):
            transaction = connection.transaction()
            await transaction.start()
            await work(connection)
            await transaction.rollback()
    await connection.execute(FILL)
    if request.param:
        await connection.execute("ANALYZE event, dispatch, attempt")
    yield connection
    await connection.close()
    await store.close()


def inbox(server: Server) -> PostgresInbox:
    """The writes without a store."""
    return PostgresInbox(server.schema, channel=None, sender="", server_clock=False)


def works(inbox: PostgresInbox) -> list[Any]:
    """All writes, each of something that is there."""

    async def add(connection: Any) -> None:
        await inbox.add(connection, [(event("new"), PLAN), (event(id="s:7"), PLAN)])

    async def work(connection: Any) -> None:
        limits = {"keep": 2, "tell": 2}
        (claims,) = await inbox.claim(connection, [("a", limits, LEASE, NOW, {})])
        leases = [found.dispatch for found in claims] or [Dispatch("nothing", "keep")]
        await inbox.extend(connection, [(leases, "a", LEASE, NOW)])
        settled = await inbox.settle(connection, [(lease, "a", Done(), NOW) for lease in leases])
        assert settled == [bool(claims)] * len(leases)

    async def metered(connection: Any) -> None:
        rates = {"keep": 2.0, "nobody": 1.0}
        limits = {"keep": 9, "tell": 2, "nobody": 1}
        await inbox.claim(connection, [("a", limits, LEASE, NOW, rates)])

    async def retry(connection: Any) -> None:
        await inbox.retry(connection, [("s:50", "keep", NOW)])

    async def again(connection: Any) -> None:
        await inbox.redeliver(connection, [("s:51", {"tell": ("keep",), "keep": ()}, NOW)])

    async def purge(connection: Any) -> None:
        await inbox.purge(connection, [(1000, NOW + 1, NOW + 60 * DAY, 10)])

    return [add, work, metered, retry, again, purge]


async def test_what_writes_reads_only_what_it_writes(server: Server, large: Any) -> None:
    """F29: no table is read whole, and few rows are, with plans of any age."""
    for work in works(inbox(server)):
        transaction = large.transaction()
        await transaction.start()
        await work(large)
        found = await large.fetch(READ, server.schema)
        await transaction.rollback()
        assert found
        for table, scans, tuples in found:
            assert (table, scans) == (table, 0)
            assert tuples < 200, (work.__name__, table)


async def test_what_reads_uses_an_index(server: Server, large: Any) -> None:
    """F29: every look of a waiting caller, of a listing and of a metric, by its plans."""
    reads: dict[str, str] = {
        "find": "ARRAY['s:1', 's:2']",
        "since": "99000, 100",
        "last_seq": "",
        "events": "NULL, NULL, 50",
        "dispatches": "'s:1'",
        "attempts": "'s:1'",
        "dead": "50",
        "next_due": "ARRAY['keep', 'tell']",
        "earlier": "ARRAY[1, 2]",
    }
    for name, values in reads.items():
        await large.execute(f"PREPARE read_{name} AS {named(name, server.schema)}")
        call = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE read_{name}"
        for mode in ("force_custom_plan", "force_generic_plan"):
            await large.execute(f"SET plan_cache_mode = {mode}")
            found = await large.fetchval(f"{call}({values})" if values else call)
            for step in steps(json.loads(found)[0]["Plan"]):
                whole = step["Node Type"] == "Seq Scan" and step["Relation Name"] in BIG
                assert (name, mode, whole) == (name, mode, False)
                assert step["Actual Rows"] < 3000, (name, mode)


def steps(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan and all that is under it."""
    return [plan, *(step for below in plan.get("Plans", ()) for step in steps(below))]
