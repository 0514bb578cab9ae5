"""The engine's promises on PostgreSQL, which inbox and ledger keep alike."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from submitter.storage.errors import (
    ConnectionLost,
    StorageConflict,
    StorageUnavailable,
    StorageValueError,
)
from submitter.storage.notify import Listener, Subscribers
from submitter.storage.postgres_batch import BatchWriter
from submitter.storage.postgres_pool import Pool, server_address
from tests.support.postgres_schemas import connected, fresh_schema
from tests.support.proxy import Proxy, proxy
from tests.support.storage_sides import SIDES, InboxSide, LedgerSide, Side
from tests.support.waiting import until


@pytest.fixture
async def place() -> AsyncIterator[tuple[str, str]]:
    """A server's address by which its sessions are found, and a schema that is not there yet."""
    async with fresh_schema() as (url, schema):
        yield f"{url}?application_name={schema}", schema


@pytest.fixture(params=list(SIDES))
def side(request: pytest.FixtureRequest) -> type[InboxSide | LedgerSide]:
    """Inbox or ledger."""
    return SIDES[request.param]


Make = Callable[..., Side]


@asynccontextmanager
async def behind(
    place: tuple[str, str], side: Make, **options: Any
) -> AsyncIterator[tuple[Proxy, Side]]:
    """One side that reaches its server through a network, and was used."""
    async with proxy(place[0]) as network:
        found = side(network.url, schema=place[1], **options)
        await found.open()
        await found.write("first")
        assert await found.stored() == {"first"}
        yield network, found
        await found.port.close()


@asynccontextmanager
async def pooled(url: str, **options: Any) -> AsyncIterator[Pool]:
    """A pool, closed at the end."""
    pool = Pool(url, **{"pooler": False, "size": 2, "max_reads": 1} | options)
    yield pool
    await pool.close()


async def kill(place: tuple[str, str]) -> int:
    """End all sessions of a test; tells how many there were."""
    async with connected(place[0].partition("?")[0]) as other:
        return int(
            await other.fetchval(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
                "WHERE application_name = $1",
                place[1],
            )
        )


@pytest.mark.parametrize("pooler", [False, True])
async def test_connections_that_ended_unnoticed(
    place: tuple[str, str], side: Make, pooler: bool
) -> None:
    """F20, F41: a call that meets nothing but dead connections is done on others."""
    async with behind(place, side, pooler=pooler) as (network, found):
        # Each in the moment of a cut: no event loop has turned to hear of it.
        network.cut()
        await found.write("second")
        network.cut()
        assert await found.stored() == {"first", "second"}
        network.cut()
        await found.write("third")


async def test_connections_that_were_killed_while_idle(place: tuple[str, str], side: Make) -> None:
    """F21: a restart or an idle cut is not noticed by the calls after it."""
    async with behind(place, side) as (_, found):
        sessions = list(found.pool._idle)
        assert await kill(place) >= len(sessions) > 0
        await until(lambda: all(each.connection.is_closed() for each in sessions))
        await found.write("second")
        assert await found.stored() == {"first", "second"}


async def test_forgotten_connections_are_not_used(place: tuple[str, str], side: Make) -> None:
    """F20, F41: a firewall that forgot an idle connection costs no call its time."""
    async with behind(place, side, statement_timeout_s=60.0) as (network, found):
        network.silence()
        found.pool._max_idle_s = 0.0
        async with asyncio.timeout(20):
            await found.write("second")
            assert await found.stored() == {"first", "second"}


async def test_connections_in_use_are_kept(place: tuple[str, str], side: Make) -> None:
    """One connection serves one call after the other."""
    async with behind(place, side) as (network, found):
        before = network.connections
        for number in range(5):
            await found.write(f"task {number}")
            await found.stored()
        assert network.connections == before


async def test_unused_connections_are_closed(place: tuple[str, str]) -> None:
    """F45: a process that is idle holds no session of the server."""
    async with pooled(place[0], max_idle_s=0.05) as pool:
        assert [tuple(row) for row in await pool.fetch("SELECT 1")] == [(1,)]
        (session,) = pool._idle
        await until(lambda: not pool._idle)
        assert session.connection.is_closed()


async def test_a_server_that_does_not_answer(place: tuple[str, str], side: Make) -> None:
    """F20: waits are bounded; the calls after it get new connections."""
    async with behind(place, side, statement_timeout_s=0.5) as (network, found):
        network.silence()
        with pytest.raises(found.unavailable, match="no answer in time"):
            await found.write("second")
        await found.write("third")
        assert await found.stored() >= {"first", "third"}


async def test_a_server_that_is_away_for_a_while(place: tuple[str, str], side: Make) -> None:
    """F20: calls fail with the server's address, and succeed when it is back."""
    async with behind(place, side) as (network, found):
        network.refusing = True
        network.cut()
        for call in (found.write("no"), found.stored()):
            with pytest.raises(found.unavailable, match=r"PostgreSQL at 127\.0\.0\.1"):
                await call
        network.refusing = False
        await found.write("second")
        assert await found.stored() == {"first", "second"}


async def test_a_server_that_takes_no_writes(place: tuple[str, str], side: Make) -> None:
    """F53: a fenced primary refuses writes, is read from, and its connections are not kept."""
    url, schema = place
    async with behind(place, side):
        pass
    found = side(f"{url}&default_transaction_read_only=on", schema=schema)
    await found.open()
    for _ in range(2):
        with pytest.raises(found.unavailable, match="read-only"):
            await found.write("no")
        assert found.pool._idle == []
    assert await found.stored() == {"first"}
    await found.port.close()


async def test_a_read_only_server_expires_every_connection(place: tuple[str, str]) -> None:
    """F53: one that is in use, or listens, is not left on the old server."""
    async with pooled(place[0], size=3) as pool:
        ended = asyncio.Event()
        await pool.listen("channel", lambda _: None, ended.set)
        async with pool.use(), pool.use(), pool.use():
            pass
        idle, _, _ = pool._idle
        async with pool.use():
            with pytest.raises(ConnectionLost, match="read-only"):
                async with pool.use("BEGIN READ ONLY") as connection:
                    await connection.execute("CREATE TABLE nothing ()")
            assert idle.connection.is_closed()
            await asyncio.wait_for(ended.wait(), 30)
        assert pool._idle == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hush@127.0.0.1:1/test", "127.0.0.1:1/test"),
        ("postgresql://me:hush@[::1]:1/test", "[::1]:1"),
        ("postgresql://127.0.0.1:1/test?password=hush", "127.0.0.1:1"),
        ("postgresql://me:hush@no-such-host.invalid/test", "no-such-host"),
        ("postgresql://me:hush@127.0.0.1/no_such_database", "no_such_database"),
        ("postgresql://no_such_role:hush@127.0.0.1/test", "no_such_role"),
        ("postgresql://me:hu/hush@127.0.0.1:1/test", "%-codes"),
        ("postgresql://me:hu#hush@127.0.0.1:5432/test", "%-codes"),
        ("postgresql://me:hush", "%-codes"),
        ("postgresql://me:hush@127.0.0.1:hush/test", "%-codes"),
        ("postgresql://me:hush@[127.0.0.1/test", "%-codes"),
        ("mysql://me:hush@127.0.0.1/test", "URL"),
    ],
)
async def test_an_address_that_leads_nowhere(
    place: tuple[str, str], side: Make, url: str, words: str
) -> None:
    """F16: the reason is in the error, the password is not."""
    found = side(url, schema=place[1])
    with pytest.raises(found.unavailable) as caught:
        await found.open()
    assert words in str(caught.value)
    assert "hush" not in f"{caught.value!r} {caught.value.__cause__!r} {found.port!r}"
    await found.port.close()


async def test_a_port_where_nothing_listens(side: Make) -> None:
    """F16, F20: host, port and database are named, and nothing that opens anything."""
    pytest.importorskip("asyncpg")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = side(f"postgresql://me:hush@127.0.0.1:{port}/inbox")
        with pytest.raises(found.unavailable) as caught:
            await found.open()
    assert f"127.0.0.1:{port}/inbox" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://a:b@host:5433/name?x=secret", "PostgreSQL at host:5433/name"),
        ("postgresql://host", "PostgreSQL at host"),
        ("postgresql://a@[::1]:5/name", "PostgreSQL at [::1]:5/name"),
        ("postgresql://a:b@one:1,two:2/name", "PostgreSQL at one:1,two:2/name"),
        ("postgresql://me:12/34@host/name", "PostgreSQL"),
        ("postgresql://me:12?34@host/name", "PostgreSQL"),
        ("postgresql://me:12#34@host/name", "PostgreSQL"),
        ("postgresql://me:a@hush/x@host/test", "PostgreSQL"),
        ("postgresql://me:1#hush@host/test", "PostgreSQL"),
        ("postgresql://me:secret", "PostgreSQL"),
        ("secret", "PostgreSQL"),
    ],
)
def test_the_address_in_a_url(url: str, expected: str) -> None:
    """F16: hosts and database; of an odd URL nothing, as it may be a part of the password."""
    assert server_address(url) == expected


def test_without_the_driver(side: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input: the error names the extra that is missing."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    kind = InboxSide if side is InboxSide else LedgerSide
    with pytest.raises(kind.bad_settings, match=r"WAVEHOOK_DATABASE: .*wavehook\[postgres\]"):
        side("postgresql://127.0.0.1/test")


async def test_a_host_that_is_dead_silent(place: tuple[str, str]) -> None:
    """F53: the time limit is for each host; the next connection begins with the one that works."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, _, options = place[0].partition("?")
        scheme, _, rest = url.partition("//")
        user, at, good = rest.rpartition("@")
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        both = f"{scheme}//{user}{at}{host},{good}?{options}"
        async with pooled(both, connect_timeout_s=1.0) as pool:
            assert len(await pool.fetch("SELECT 1")) == 1
            async with asyncio.timeout(0.9), pool.use(), pool.use():
                pass


LOOPS = """
import asyncio, sys
from tests.support.storage_sides import SIDES

side = SIDES[sys.argv[1]](sys.argv[2], schema=sys.argv[3])

async def once(number):
    await side.open()
    side.subscribe(lambda: None)
    await side.write(f"task-{number}")
    assert f"task-{number}" in await side.stored()

for number in range(2):
    asyncio.run(once(number))
"""
"""In a process of its own: what a closed loop could not close, Python closes at the end."""


@pytest.mark.parametrize("name", list(SIDES))
async def test_another_event_loop_later(place: tuple[str, str], name: str) -> None:
    """F41: some platforms make a loop for every request; the connections are made anew."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", LOOPS, name, *place
    )
    assert await asyncio.wait_for(process.wait(), 60) == 0
    found = SIDES[name](place[0], schema=place[1])
    await found.open()
    assert await found.stored() == {"task-0", "task-1"}
    await found.port.close()


async def test_a_close_that_nobody_answers(place: tuple[str, str]) -> None:
    """F40: a process ends although the server does not let go."""
    pool = Pool(place[0], pooler=False, size=1, max_reads=1, connect_timeout_s=0.5)
    ended = asyncio.Event()

    async def hold() -> None:
        async with pool.use() as connection:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.fetch("SELECT pg_sleep(60)")

    holding = asyncio.ensure_future(hold())
    await until(lambda: pool._in_use)
    async with asyncio.timeout(30):
        await pool.close()
        await ended.wait()
    with pytest.raises(StorageUnavailable):
        await holding


async def test_a_closed_pool_may_be_used_again(place: tuple[str, str]) -> None:
    """A ledger that was closed may be opened."""
    async with pooled(place[0]) as pool:
        await pool.fetch("SELECT 1")
        await pool.close()
        assert pool._idle == []
        assert len(await pool.fetch("SELECT 1")) == 1


async def test_an_error_keeps_the_connection_that_is_sound(place: tuple[str, str]) -> None:
    """F20: a value that cannot be stored, and an error of the caller's own, cost no connection."""
    async with pooled(place[0]) as pool:
        await pool.fetch("SELECT 1")
        (before,) = pool._idle
        with pytest.raises(StorageValueError):
            async with pool.use("BEGIN") as connection:
                await connection.fetch("SELECT 1 / 0")
        with pytest.raises(KeyError):
            async with pool.use("BEGIN"):
                raise KeyError
        assert pool._idle == [before]
        assert not before.connection.is_in_transaction()


async def test_a_cancelled_call_leaves_no_statement_behind(place: tuple[str, str]) -> None:
    """F40: its connection may still be at work, so that nobody gets it."""
    async with pooled(place[0]) as pool:
        sleeping = asyncio.ensure_future(pool.fetch("SELECT pg_sleep(60)"))
        await until(lambda: pool._in_use)
        sleeping.cancel()
        await asyncio.wait([sleeping])
        assert (pool._idle, pool._in_use) == ([], set())
        async with asyncio.timeout(10):
            assert len(await pool.fetch("SELECT 1")) == 1


async def test_a_commit_whose_answer_is_lost(place: tuple[str, str]) -> None:
    """F53: its result is unknown, so that it is no lost connection, which would be repeated."""
    async with proxy(place[0]) as network, pooled(network.url) as pool:
        network.cut_at = b"COMMIT\0"
        with pytest.raises(StorageUnavailable) as caught:
            async with pool.use("BEGIN") as connection:
                await connection.fetch("SELECT 1")
        assert not isinstance(caught.value, ConnectionLost)


@pytest.mark.parametrize("begin", [None, "BEGIN"])
async def test_a_batch_that_meets_another_is_repeated(
    place: tuple[str, str], begin: str | None
) -> None:
    """F20: what the server ends for another's sake is done again; after three tries it fails."""
    tries: list[int] = []

    async def meet(connection: Any, enough: list[int]) -> list[None]:
        tries.append(1)
        if len(tries) < enough[0]:
            await connection.execute("DO $$ BEGIN RAISE 'x' USING ERRCODE = '40P01'; END $$")
        return [None]

    async with pooled(place[0]) as pool:
        writer = BatchWriter(pool, begin=begin)
        await writer.submit(meet, 3)
        assert len(tries) == 3
        with pytest.raises(StorageConflict, match="x"):
            await writer.submit(meet, 99)
        assert len(tries) == 6


@pytest.mark.parametrize("started", [False, True])
async def test_a_program_that_ends_in_the_middle(place: tuple[str, str], started: bool) -> None:
    """F40: those who still wait get an error; the next use works."""

    async def sleep(connection: Any, seconds: list[float]) -> list[float]:
        await connection.fetch("SELECT pg_sleep($1)", seconds[0])
        return seconds

    async with pooled(place[0]) as pool:
        writer = BatchWriter(pool)
        waiting = [writer.submit(sleep, 60.0) for _ in range(3)]
        if started:
            await until(lambda: pool._in_use)
        assert writer._task is not None
        writer._task.cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the program is ending"] * 3
        assert await writer.submit(sleep, 0.0) == 0.0
        await writer.close()


async def test_a_listener_that_was_cut_listens_again(place: tuple[str, str]) -> None:
    """F21: it reports a reconnection, since notifications may be missing, and hears the next."""
    payloads: list[str] = []
    reconnected = asyncio.Event()
    async with pooled(place[0]) as pool, connected(place[0].partition("?")[0]) as other:
        listener = Listener(pool, place[1], payloads.append, reconnected.set)
        await listener.start()
        assert await kill(place) == 1
        async with asyncio.timeout(30):
            await reconnected.wait()
        await other.execute(f"NOTIFY {place[1]}, 'news'")
        await until(lambda: payloads == ["news"])
        await listener.stop()


async def test_a_listener_s_heartbeat(place: tuple[str, str]) -> None:
    """F21: a connection that neither ends nor answers is given up for another."""
    reconnected = asyncio.Event()
    async with proxy(place[0]) as network, pooled(network.url, connect_timeout_s=0.3) as pool:
        options = {"heartbeat_interval_s": 0.05, "reconnect_interval_s": 0.0}
        listener = Listener(pool, place[1], lambda _: None, reconnected.set, **options)
        await listener.start()
        await asyncio.sleep(0.3)
        assert network.connections == 1
        network.silence()
        async with asyncio.timeout(30):
            await reconnected.wait()
        await listener.stop()


async def test_a_listener_that_cannot_connect_at_first(place: tuple[str, str]) -> None:
    """F20: it keeps nobody from work, and listens later."""
    reconnected = asyncio.Event()
    async with proxy(place[0]) as network, pooled(network.url) as pool:
        network.refusing = True
        listener = Listener(
            pool, place[1], lambda _: None, reconnected.set, reconnect_interval_s=0.05
        )
        await listener.start()
        await asyncio.sleep(0.2)
        network.refusing = False
        async with asyncio.timeout(30):
            await reconnected.wait()
        await listener.stop()


async def test_a_counter_that_was_seen_wakes_nobody() -> None:
    """Subscribers are woken by a counter that has changed, once for each change."""
    subscribers, woken = Subscribers(), 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    async with AsyncExitStack() as stack:
        stack.callback(subscribers.add(wake))
        for counter in (7, 7, 8, 8):
            subscribers.announce(counter)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert woken == 2
