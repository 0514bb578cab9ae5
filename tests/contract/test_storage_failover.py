"""F53: a database fails over, and its old server stays up, read-only.

Two servers of PostgreSQL, the second a streaming standby of the first. Inbox and ledger must go on
at the new primary without a restart: calls at once, and wake-ups as fast as before.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from receiver.errors import StoreUnavailable
from submitter.errors import LedgerUnavailable
from tests.support.own_postgres import PASSWORD, OwnPostgres, own_postgres
from tests.support.postgres_schemas import connected
from tests.support.proxy import Proxy, proxy
from tests.support.storage_sides import InboxSide, LedgerSide, Side

MAX_WAKE_S = 0.25
"""With polling alone a worker waits for up to 0.5 s; a commit and its notification take 20 ms."""

MAX_CALL_S = 2.0
"""Of the first call after a failover, which a new connection serves."""


Open = Callable[[str], Awaitable[list[Side]]]


@dataclass
class Pair:
    """A primary, its standby, and an address that leads to either."""

    old: OwnPostgres
    new: OwnPostgres
    network: Proxy

    async def fence(self) -> None:
        """The standby takes over; the old primary keeps its connections, and writes nothing."""
        async with connected(self.old.url) as connection:
            await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await connection.execute("SELECT pg_reload_conf()")
        await self.new.promote()

    async def swap(self) -> None:
        """The standby takes over; the old primary comes back as a standby."""
        await self.new.promote()
        await self.old.restart_as_standby()

    def lead_to(self, server: OwnPostgres) -> None:
        """New connections go to this server."""
        host, _, port = server.address.partition(":")
        self.network.target = (host, int(port))


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(own_postgres())
        new = await stack.enter_async_context(own_postgres(standby_of=old))
        network = await stack.enter_async_context(proxy(old.url))
        yield Pair(old, new, network)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens both sides at an address, and closes them at the end."""
    async with AsyncExitStack() as stack:

        async def opened(url: str) -> list[Side]:
            sides: list[Side] = [InboxSide(url), LedgerSide(url)]
            for side in sides:
                await side.open()
                stack.push_async_callback(side.port.close)
                side.subscribe(lambda: None)
            return sides

        yield opened


async def wake_up_s(writer: Side, waiter: Side, names: str) -> float:
    """The time from the call of a write to the wake-up in another process, the best of some."""
    shortest = 10.0
    woken = asyncio.Event()
    waiter.subscribe(woken.set)
    for name in names:
        await asyncio.sleep(0.05)
        woken.clear()
        began = time.monotonic()
        await writer.write(name)
        async with asyncio.timeout(10):
            await woken.wait()
        shortest = min(shortest, time.monotonic() - began)
    return shortest


async def listen(server: OwnPostgres, count: int = 2) -> None:
    """Wait until both sides that wait LISTEN at a server."""
    async with asyncio.timeout(30), connected(server.url) as connection:
        while count != await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%' AND application_name <> 'other'"
        ):
            await asyncio.sleep(0.01)


def other(server: OwnPostgres) -> str:
    """The address as another process has it, which writes there."""
    return f"{server.url}?application_name=other"


async def test_the_old_server_keeps_its_connections(pair: Pair, opened: Open) -> None:
    """F53: the first call after the failover succeeds, and others' work wakes as fast as before."""
    waiters = await opened(pair.network.url)
    writers = await opened(other(pair.old))
    await listen(pair.old)
    before = [await wake_up_s(*two, "abc") for two in zip(writers, waiters, strict=True)]
    for waiter in waiters:
        await waiter.write("waiter's own")
    await pair.fence()
    pair.lead_to(pair.new)

    for waiter in waiters:
        began = time.monotonic()
        await waiter.write("after the failover")
        assert time.monotonic() - began < MAX_CALL_S

    await listen(pair.new)
    writers = await opened(other(pair.new))
    after = [await wake_up_s(*two, "def") for two in zip(writers, waiters, strict=True)]
    for waiter in waiters:
        assert await waiter.stored() == {*"abcdef", "waiter's own", "after the failover"}
    sys.stdout.write(f"wake-up in seconds, inbox and ledger: {before}, then {after}\n")
    assert max(after) < MAX_WAKE_S


async def test_the_old_server_comes_back_as_a_standby(pair: Pair, opened: Open) -> None:
    """F53: connections that were made to it meanwhile are dropped, once the address leads away."""
    waiters = await opened(pair.network.url)
    for waiter in waiters:
        await waiter.write("before")
    await pair.swap()
    for waiter in waiters:
        with pytest.raises((StoreUnavailable, LedgerUnavailable), match="read-only"):
            await waiter.write("refused")
    pair.lead_to(pair.new)

    for waiter in waiters:
        await waiter.write("after")

    await listen(pair.new)
    for writer, waiter in zip(await opened(other(pair.new)), waiters, strict=True):
        assert await wake_up_s(writer, waiter, "de") < MAX_WAKE_S
        assert await waiter.stored() == {"before", "after", "d", "e"}


@pytest.mark.parametrize("options", ["", "?target_session_attrs=read-write"])
async def test_an_address_of_both_hosts(pair: Pair, opened: Open, options: str) -> None:
    """F53: the new primary is found with no name to change."""
    hosts = f"{pair.old.address},{pair.new.address}"
    waiters = await opened(f"postgresql://postgres:{PASSWORD}@{hosts}/postgres{options}")
    await listen(pair.old)
    await pair.fence()

    for waiter in waiters:
        await waiter.write("after")

    await listen(pair.new)
    for writer, waiter in zip(await opened(other(pair.new)), waiters, strict=True):
        assert await wake_up_s(writer, waiter, "de") < MAX_WAKE_S


async def test_processes_that_only_listen_move_too(pair: Pair, opened: Open) -> None:
    """F53: a heartbeat finds that the server has become read-only, though nobody wrote."""
    waiters = await opened(pair.network.url)
    await listen(pair.old)
    await pair.fence()
    pair.lead_to(pair.new)

    await listen(pair.new)

    for writer, waiter in zip(await opened(other(pair.new)), waiters, strict=True):
        assert await wake_up_s(writer, waiter, "de") < MAX_WAKE_S
