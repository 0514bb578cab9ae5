"""F20, F21, F43 on PostgreSQL: connections cut, servers away or read-only, other versions."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from receiver.errors import SettingsError, StoreUnavailable
from receiver.event import Done
from receiver.stores.postgres import PostgresStore
from submitter.storage import notify
from submitter.storage.errors import StorageConflict, StorageUnavailable
from submitter.storage.postgres_pool import Pool, server_address
from tests.support.events import LEASE, NOW, PLAN, claim, event
from tests.support.postgres_server import Server
from tests.support.waiting import until

COUNT = 200
CUTS = 8


async def insist(store: PostgresStore, subject: str) -> bool:
    """Add as a sender does: again until it is told that it is stored. Whether it was new."""
    while True:
        try:
            return not (await store.add(event(subject), PLAN)).duplicate
        except StoreUnavailable:
            await asyncio.sleep(0.01)


async def handle(store: PostgresStore, owner: str, ran: list[str], ended: asyncio.Event) -> None:
    """Claim and settle as a dispatcher does, until told to end and nothing is left."""
    now = NOW
    while True:
        try:
            claims = await store.claim(owner, {"keep": 20, "tell": 20}, LEASE, now)
        except StoreUnavailable:
            await asyncio.sleep(0.01)
            continue
        for found in claims:
            while True:
                try:
                    await store.settle(found.dispatch, owner, Done(), now)
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
                else:
                    break
            ran.append(found.dispatch.key)
        if not claims:
            if ended.is_set() and await store.next_due(list(PLAN)) is None:
                return
            # Claims whose answer was cut off come back when their lease ends.
            now += LEASE if ended.is_set() else 0
            await asyncio.sleep(0.01)


async def test_connections_cut_under_load(server: Server) -> None:
    """F21: every acknowledged event is stored and handled, whatever was cut in the middle."""
    stores = [await server.opened() for _ in range(2)]
    ended = asyncio.Event()
    ran: list[str] = []
    handling = [
        asyncio.create_task(handle(store, f"o{n}", ran, ended)) for n, store in enumerate(stores)
    ]
    acknowledged: set[str] = set()
    cuts = 0

    async def send(first: int) -> None:
        for n in range(first, COUNT, 4):
            news = await asyncio.gather(*(insist(store, f"task-{n}") for store in stores))
            assert sum(news) <= 1
            acknowledged.add(event(f"task-{n}").id)

    sending = asyncio.gather(*(send(n) for n in range(4)))

    marks = list(range(0, COUNT, COUNT // CUTS))

    async def on() -> bool:
        return sending.done() or len(acknowledged) >= marks[0]

    async with asyncio.timeout(60):
        while marks:
            await until(on)
            cuts += await server.cut()
            del marks[0]
        await sending
        ended.set()
        await asyncio.gather(*handling)

    assert cuts > CUTS
    ids = [event(f"task-{n}").id for n in range(COUNT)]
    assert (await stores[0].find(ids)).keys() == acknowledged == set(ids)
    assert set(ran) == {f"{id}/{name}" for id in ids for name in PLAN}
    assert (await stores[1].stats()).depth == {}
    for store in stores:
        await store.close()


async def test_an_idle_cut_is_not_noticed(server: Server) -> None:
    """F21: a connection that was ended while nobody used it is made again before it is used."""
    store = await server.opened()
    await store.add(event(), PLAN)
    sessions = list(store._pool._idle)
    assert await server.cut() >= 2

    async def closed() -> bool:
        return all(each.connection.is_closed() for each in sessions)

    await until(closed)
    assert (await store.add(event(), PLAN)).duplicate
    assert len(await claim(store)) == 1
    assert len(await store.events()) == 1
    await store.close()


async def test_a_listener_that_was_cut_listens_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F21: it wakes once for what it may have missed, then hears what others do."""
    monkeypatch.setattr(notify, "RECONNECT_INTERVAL_S", 0.01)
    one, two = await server.opened(), await server.opened()
    heard: list[str] = []
    two.subscribe(lambda: heard.append("wake"))
    await server.cut()

    async def woken() -> bool:
        return bool(heard)

    await until(woken)
    heard.clear()
    await insist(one, "after the cut")
    await until(woken)
    await one.close()
    await two.close()


async def test_a_server_that_cannot_be_listened_to_is_polled(server: Server) -> None:
    """F20: a listener that does not come about keeps nobody from work, and comes later."""
    store = server.store()
    listen = store._pool.listen
    tries: list[int] = []
    woken = asyncio.Event()
    store.subscribe(woken.set)

    async def sometimes(*arguments: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise StorageUnavailable("no")
        return await listen(*arguments)

    store._pool.listen = sometimes  # type: ignore[method-assign, assignment]
    await store.open()
    async with asyncio.timeout(30):
        await woken.wait()
    assert len(tries) == 3
    await store.close()


async def test_a_server_that_is_away_is_named_without_the_password() -> None:
    """Bad input: host and reason, and nothing that opens anything."""
    pytest.importorskip("asyncpg")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        store = PostgresStore(f"postgresql://me:hunter2@127.0.0.1:{port}/inbox")
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
    assert f"127.0.0.1:{port}/inbox" in str(caught.value)
    assert "hunter2" not in repr(caught.value) + repr(store)
    assert caught.value.__cause__ is None
    await store.close()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://me:hun#ter2@127.0.0.1:5432/test", "URL"),
        ("postgresql://me:hun/ter2@127.0.0.1:5432/test", "URL"),
        ("mysql://me:hunter2@127.0.0.1/test", "URL"),
        ("postgresql://me:hunter2@127.0.0.1/no_such_database", "no_such_database"),
        ("postgresql://no_such_role:hunter2@127.0.0.1/test", "no_such_role"),
        ("postgresql://me:hunter2@no-such-host.invalid/test", "no-such-host"),
    ],
)
async def test_a_url_that_leads_nowhere(server: Server, url: str, word: str) -> None:
    """Bad input: a word for each, and never the password."""
    store = PostgresStore(url, schema=server.schema)
    with pytest.raises(StoreUnavailable, match=word) as caught:
        await store.open()
    assert "ter2" not in repr(caught.value)
    await store.close()


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
        ("postgresql://me:secret", "PostgreSQL"),
        ("secret", "PostgreSQL"),
    ],
)
def test_the_address_in_a_url(url: str, expected: str) -> None:
    """Only what is no secret, and nothing of what may be one."""
    assert server_address(url) == expected


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input: the error names the extra that is missing."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(SettingsError, match=r"wavehook\[postgres\]"):
        PostgresStore("postgresql://127.0.0.1/test")


async def test_a_server_that_does_not_answer(server: Server) -> None:
    """F20: nobody waits for ever, and what was asked meanwhile can be asked again."""
    await (await server.opened()).close()
    store = await server.opened(statement_timeout_s=0.5)
    await store.add(event(), PLAN)
    connection = await server.connect()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE event, dispatch IN ACCESS EXCLUSIVE MODE")

    answers = await asyncio.gather(
        store.add(event("two"), PLAN),
        claim(store),
        store.events(),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert "no answer in time" in str(answers[0])

    await transaction.rollback()
    await connection.close()
    assert await insist(store, "three")
    assert len(await store.events()) >= 2
    await store.close()


async def test_a_server_that_takes_no_writes(server: Server) -> None:
    """F20, F21: a former primary says so, is read from, and its connections are not kept."""
    await (await server.opened()).close()
    server.url += "&default_transaction_read_only=on"
    store = await server.opened()

    for call in (store.ping(), store.add(event(), PLAN), store.pause("keep", NOW)):
        with pytest.raises(StoreUnavailable, match="read-only"):
            await call
    assert await store.events() == []
    await store.close()


async def test_a_schema_that_was_damaged_meanwhile(server: Server) -> None:
    """F20: reads and writes that cannot be done say so; the others go on."""
    store = await server.opened()
    connection = await server.connect()
    await connection.execute("DROP TABLE pause")
    await connection.close()

    with pytest.raises(StoreUnavailable, match="pause"):
        await store.next_due(["keep"])
    with pytest.raises(StoreUnavailable, match="pause"):
        await store.pause("keep", NOW)
    assert not (await store.add(event(), PLAN)).duplicate
    await store.close()


async def test_a_close_that_nobody_answers(server: Server) -> None:
    """F40: a process ends although the server does not let go."""
    pool = Pool(server.url, pooler=False, size=1, max_reads=1, connect_timeout_s=0.05)
    ended = asyncio.Event()

    async def hold() -> None:
        async with pool.use() as connection:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.fetch("SELECT pg_sleep(60)")

    holding = asyncio.ensure_future(hold())
    await until_used(pool)
    async with asyncio.timeout(30):
        await pool.close()
        await ended.wait()
    with pytest.raises(StorageUnavailable):
        await holding


async def until_used(pool: Pool) -> None:
    """Wait until a connection is in use."""

    async def used() -> bool:
        return bool(pool._in_use)

    await until(used)


async def test_what_meets_another_is_tried_again(server: Server) -> None:
    """F20: what the server ends for another's sake is asked anew; after some tries it is told."""
    store = await server.opened()
    writer = store._work_writer
    assert writer is not None
    tries: list[int] = []

    async def meet(connection: Any, enough: list[int]) -> list[None]:
        tries.append(1)
        if len(tries) < enough[0]:
            await connection.execute("DO $$ BEGIN RAISE 'x' USING ERRCODE = '40P01'; END $$")
        return [None]

    await writer.submit(meet, 3)
    assert len(tries) == 3
    with pytest.raises(StorageConflict, match="x"):
        await writer.submit(meet, 99)
    assert len(tries) == 6
    await store.close()


async def test_what_cannot_be_asked(server: Server) -> None:
    """Bad input: a read with what cannot be sent says so, and does not show it."""
    store = await server.opened()
    with pytest.raises(StoreUnavailable) as caught:
        await store.events(type="secret \ud800")
    assert "secret" not in str(caught.value)
    await store.close()


async def test_a_process_that_ends_in_the_middle(server: Server) -> None:
    """F40: nobody waits for what a loop that ends has not done."""
    store = await server.opened()
    writer = store._add_writer
    assert writer is not None
    adding = [asyncio.ensure_future(store.add(event(f"task-{n}"), PLAN)) for n in range(3)]
    await asyncio.sleep(0)
    assert writer._task is not None
    writer._task.cancel()

    answers = await asyncio.gather(*adding, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["the program is ending"] * 3
    assert not (await store.add(event(), PLAN)).duplicate
    await store.close()
