"""F20, F21, F43 on PostgreSQL: connections cut, servers away or read-only, other versions."""

from __future__ import annotations

import asyncio

import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Done
from receiver.stores.postgres import PostgresStore
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
    """F20, F53: every kind of write says so, also the one that asks whether writes would work."""
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


async def test_what_cannot_be_asked(server: Server) -> None:
    """Bad input: a read with what cannot be sent says so, and does not show it."""
    store = await server.opened()
    with pytest.raises(StoreUnavailable) as caught:
        await store.events(type="secret \ud800")
    assert "secret" not in str(caught.value)
    await store.close()
