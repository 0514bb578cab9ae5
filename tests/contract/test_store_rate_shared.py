"""Promise 3, the rate of a handler over processes, versions and locks."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresInbox
from receiver.stores.sqlite import SQLiteStore
from submitter.storage import migrations
from tests.support.events import LEASE, NOW, PLAN, claim, event
from tests.support.paths import ROOT
from tests.support.postgres_schemas import connected
from tests.support.postgres_server import Server, waits

PROCESSES = 4
EVENTS = 36
RATE = 24.0


async def race(store: Store, place: str) -> list[float]:
    """Let processes claim all events at a rate; the times of the starts, in order."""
    for n in range(EVENTS):
        await store.add(event(f"task-{n}", received_at=time.time()), {"keep": ()})
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *(
                "-m",
                "tests.contract.store_process",
                "claim_at_rate",
                place,
                f"owner-{n}",
                str(RATE),
            ),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = [(await process.communicate(b"\n"))[0] for process in processes]
    assert sum(map(int, answers)) == EVENTS
    attempts = [await store.attempts(event(f"task-{n}").id) for n in range(EVENTS)]
    return sorted(each.started_at for (each,) in attempts)


def holds(starts: list[float]) -> bool:
    """Whether no span of time has more starts than the rate and its burst allow."""
    return all(
        last - first + 1 <= RATE * (1 + starts[last] - starts[first]) + 1e-3
        for first in range(len(starts))
        for last in range(first, len(starts))
    )


async def test_processes_on_one_file_share_a_rate(tmp_path: Path) -> None:
    """F22, F26: four of them that ask all the time get no more than one would."""
    store = SQLiteStore(tmp_path / "inbox.db")
    await store.open()
    starts = await race(store, str(store.path))
    assert holds(starts)
    await store.close()


async def test_machines_on_one_schema_share_a_rate(server: Server) -> None:
    """F26: by the server's clock."""
    store = await server.opened()
    starts = await race(store, f"{server.url}#{server.schema}")
    assert holds(starts)
    await store.close()


async def test_what_was_used_up_lasts_over_a_restart(tmp_path: Path) -> None:
    """F26: a process that starts anew begins with no new allowance."""
    for n in range(2):
        store = SQLiteStore(tmp_path / "inbox.db")
        await store.open()
        await store.add(event(f"task-{n}"), PLAN)
        assert len(await claim(store, owner=f"o{n}", now=NOW + n / 2, rate=1.0)) == 1 - n
        await store.close()


async def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """F43: what is in it stays, and has rates from then on."""
    path = tmp_path / "inbox.db"
    connection = sqlite3.connect(path)
    for statement in migrations.split(migrations.scripts("receiver.stores", "sqlite")[0][1]):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    store = SQLiteStore(path)
    await store.open()
    await store.add(event(), PLAN)
    await store.add(event("two"), PLAN)
    assert len(await claim(store, rate=1.0)) == 1
    await store.close()


async def test_an_older_schema_is_brought_up_to_date(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: beside a process of the older version, which goes on without rates."""
    with monkeypatch.context() as older:
        known = migrations.scripts("receiver.stores", "postgres")[:2]
        older.setattr(migrations, "scripts", lambda package, engine: known)
        old = await server.opened()
    for n in range(5):
        await old.add(event(f"task-{n}"), PLAN)
    new = await server.opened()

    assert len(await claim(old, limit=1)) == 1
    assert len(await claim(new, rate=1.0)) == 1
    assert len(await claim(old, limit=1)) == 1
    await old.close()
    await new.close()


async def test_claimers_of_several_handlers_never_wait_for_each_other(server: Server) -> None:
    """F21: whatever the order in which each names them, and whichever are new."""
    store = await server.opened()
    names = [f"h{n}" for n in range(6)]
    for n in range(12):
        await store.add(event(f"task-{n}"), dict.fromkeys(names, ()))
    orders = [names, names[::-1], names[1::2] + names[::2], names[3:] + names[:3]]

    async def claims(order: list[str]) -> int:
        """Without the store, which would try again after a deadlock."""
        inbox = PostgresInbox(server.schema, channel=None, sender="", server_clock=False)
        connection = await server.connect()
        count = 0
        for upto in range(1, len(order) + 1):
            limits, rates = dict.fromkeys(order[:upto], 9), dict.fromkeys(order[:upto], 2.0)
            (found,) = await inbox.claim(connection, [("a", limits, LEASE, NOW, rates)])
            count += len(found)
        await connection.close()
        return count

    assert sum(await asyncio.gather(*map(claims, orders))) == 2 * len(names)
    await store.close()


@asynccontextmanager
async def locked(server: Server) -> AsyncIterator[Any]:
    """While another claim is under way, for all handlers with a rate; its connection."""
    async with connected(server.url) as connection, connection.transaction():
        await connection.execute(f"SELECT 1 FROM {server.schema}.rate FOR UPDATE")
        yield connection


async def test_a_claim_waits_for_another_of_its_handler(server: Server) -> None:
    """Promise 3: whoever has no rate waits for nobody, nor does who would get nothing.

    One's turn has come when one is under way: then one looks at the clock.
    """
    store, other = [await server.opened(clock="server") for _ in range(2)]
    for n in range(9):
        await store.add(event(f"task-{n}"), {**PLAN, "slow": ()})
    limits = {"keep": 1, "slow": 1, "none": 1}
    rates = {"keep": 4.0, "slow": 1 / 3600, "none": 4.0}
    await store.claim("a", limits, LEASE, time.time(), rates)
    async with locked(server) as connection:
        waiting = asyncio.ensure_future(claim(store, rate=4.0))
        await waits(server)
        async with asyncio.timeout(5):
            assert len(await claim(other, "tell", rate=4.0)) == 4
            limits = {"tell": 2, "slow": 1, "none": 1}
            assert len(await other.claim("b", limits, LEASE, time.time(), rates)) == 2
            assert len(await claim(other, limit=2)) == 2
        assert not waiting.done()
        turn = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    assert {each.dispatch.due_at > turn + LEASE for each in await waiting} == {True}
    await store.close()
    await other.close()


async def test_a_claim_that_hangs_holds_others_for_a_while(server: Server) -> None:
    """F20: what waits too long is told so, and the dispatcher looks again."""
    store = await server.opened()
    for subject in ("one", "two"):
        await store.add(event(subject), PLAN)
    await claim(store, limit=1, rate=4.0)
    async with connected(server.url) as connection:
        await connection.execute(
            f"ALTER FUNCTION {server.schema}.claim_at_rates SET lock_timeout = '50ms'"
        )
    async with locked(server):
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await claim(store, rate=4.0)
    assert len(await claim(store, rate=4.0)) == 1
    await store.close()
