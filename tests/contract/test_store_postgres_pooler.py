"""Behind a pooler that gives out the server's connections by the transaction: a real PgBouncer."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from receiver.event import DispatchState, Done
from receiver.stores.postgres import PostgresStore
from tests.support.events import CHAIN, LEASE, NOW, PLAN, claim, claim_one, event
from tests.support.postgres_server import Server
from tests.support.waiting import until

INI = """
[databases]
{name} = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
async def pooled(server: Server) -> AsyncIterator[str]:
    """The URL of a pooler with three connections, for all who ask."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        # Few machines have it, and CI need not.
        pytest.skip("pgbouncer is not on this machine")
    parts = urlsplit(server.url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    user = parts.username or pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp())
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        INI.format(
            host=parts.hostname,
            port=parts.port or 5432,
            user=user,
            password=f" password={parts.password}" if parts.password else "",
            name=parts.path.removeprefix("/"),
            own=own,
        )
    )
    # It refuses to be root; whoever it becomes reads its settings.
    folder.chmod(0o755)
    options = ["-u", "nobody"] if os.getuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        program, "-q", *options, str(settings), stderr=asyncio.subprocess.DEVNULL
    )

    async def up() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", own)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    await until(up)
    yield f"postgresql://{user}@127.0.0.1:{own}{parts.path}"
    process.terminate()
    await process.wait()
    shutil.rmtree(folder)


async def test_every_kind_of_work(server: Server, pooled: str) -> None:
    """The promises hold where each transaction may be on another connection of the server."""
    stores = [PostgresStore(pooled, schema=server.schema, pooler=True) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    one, two, three = stores
    events = [event(f"task-{n}") for n in range(60)]

    receipts = await asyncio.gather(
        *(store.add(each, CHAIN) for each in events for store in stores)
    )
    assert sum(not receipt.duplicate for receipt in receipts) == 60
    claims = [await claim(store, limit=20, owner=store._sender) for store in stores]
    assert len({found.dispatch.key for some in claims for found in some}) == 60
    for store, some in zip(stores, claims, strict=True):
        leases = [found.dispatch for found in some]
        assert await store.extend(leases, store._sender, LEASE, NOW) == []
        settled = [store.settle(lease, store._sender, Done(), NOW) for lease in leases]
        assert all(await asyncio.gather(*settled))
    assert (await one.stats()).depth == {("tell", DispatchState.PENDING): 60}
    found, listed = await asyncio.gather(
        two.find([each.id for each in events]), three.since(0, limit=100)
    )
    assert (len(found), [each.seq for each in listed]) == (60, list(range(1, 61)))
    assert await one.redeliver(events[0].id, PLAN, NOW)
    assert (await claim_one(two, "keep")).attempt == 2
    await asyncio.gather(*(store.ping() for store in stores))
    for store in stores:
        await store.close()
