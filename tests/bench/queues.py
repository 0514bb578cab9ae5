"""One job queue on PostgreSQL, as a program of its own: fills it, then runs what is in it.

Prints how many jobs it wrote and how many it ran a second. Every job is written in a transaction
of its own together with one row of the application, from so many senders at once, and is given the
same body; to run one does nothing. All queues keep their tables logged, and wait for each commit.

    python -m tests.bench.queues pgqueuer --url postgresql://… --schema bench --count 5000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from importlib import import_module
from typing import Any

SENDERS = 16
"""Jobs that are written at once, each on a connection of its own where a queue needs that."""

BODY = json.dumps({"status": "completed", "prompt": "a lighthouse at dusk " * 30})
RECORD = "CREATE TABLE record (n BIGINT PRIMARY KEY, body TEXT NOT NULL)"


async def filled(count: int, write: Callable[[int], Awaitable[object]]) -> float:
    """Write so many jobs; how many a second."""
    numbers = iter(range(count))

    async def send() -> None:
        for number in numbers:
            await write(number)

    started = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return count / (time.perf_counter() - started)


async def timed(count: int, work: Awaitable[object]) -> float:
    """Run all jobs; how many a second, until the last one is written down as done."""
    started = time.perf_counter()
    await work
    return count / (time.perf_counter() - started)


async def pool(url: str, schema: str) -> Any:
    found = await import_module("asyncpg").create_pool(
        url, min_size=SENDERS, max_size=SENDERS, server_settings={"search_path": schema}
    )
    await found.execute(f"CREATE SCHEMA {schema}; {RECORD}")
    return found


async def wavehook(url: str, schema: str, count: int, concurrency: int) -> dict[str, float]:
    """The row of the application is the event itself; the process is set up as a worker's."""
    from receiver.cli.startup import tune_gc
    from receiver.dispatch.dispatcher import Dispatcher
    from receiver.event import Event
    from receiver.handlers.base import Context, Installed
    from receiver.handlers.routing import Route
    from receiver.stores.postgres import PostgresStore
    from receiver.telemetry import TelemetryEvent

    store = PostgresStore(url, schema=schema, clock="server")
    await store.open()

    async def write(number: int) -> None:
        event = Event(
            id=f"s:{number}",
            source="s",
            type="prediction.completed",
            body=BODY.encode(),
            received_at=time.time(),
        )
        await store.add(event, {"note": ()})

    seen, settled, done = set(), [], asyncio.Event()

    async def note(event: Event, context: Context) -> None:
        seen.add(event.id)

    def told(details: TelemetryEvent) -> None:
        settled.append(details.outcome)
        if len(settled) == count:
            done.set()

    async def work() -> None:
        await dispatcher.start()
        await done.wait()

    handler = Installed(Route("note"), note, concurrency=concurrency)
    dispatcher = Dispatcher(store, [handler], owner="bench", hooks=[told])
    wrote = await filled(count, write)
    tune_gc()
    ran = await timed(count, work())
    await dispatcher.stop(1)
    assert (len(seen), set(settled)) == (count, {"done"})
    assert (await store.stats()).depth == {}
    await store.close()
    return {"wrote": wrote, "ran": ran}


async def pgqueuer(
    url: str, schema: str, count: int, concurrency: int, *, capped: bool = True
) -> dict[str, float]:
    """By asyncpg, in batches of half the concurrency, which is the most that it takes with a cap.

    Without one, which is its default and faster, it has whatever it reads at work at once.
    """
    from pgqueuer import AsyncpgDriver, QueueManager
    from pgqueuer.models import Job
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    connections = await pool(url, schema)
    async with connections.acquire() as connection:
        await Queries(AsyncpgDriver(connection)).install()

    async def write(number: int) -> None:
        async with connections.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO record VALUES ($1, $2)", number, BODY)
            await Queries(AsyncpgDriver(connection)).enqueue("note", BODY.encode())

    wrote = await filled(count, write)
    async with connections.acquire() as connection:
        manager = QueueManager(Queries(AsyncpgDriver(connection)))
        seen = set()

        @manager.entrypoint("note")
        async def note(job: Job) -> None:
            seen.add(job.id)

        ran = await timed(
            count,
            manager.run(
                mode=QueueExecutionMode.drain,
                batch_size=concurrency // 2 if capped else concurrency,
                max_concurrent_tasks=concurrency if capped else None,
            ),
        )
        assert len(seen) == count
        assert await connection.fetchval("SELECT count(*) FROM pgqueuer") == 0
    await connections.close()
    return {"wrote": wrote, "ran": ran}


async def procrastinate(url: str, schema: str, count: int, concurrency: int) -> dict[str, float]:
    """By psycopg with its C part, a connection for each of its workers up to `SENDERS`."""
    from procrastinate import App, PsycopgConnector

    connector = PsycopgConnector(
        conninfo=url, kwargs={"options": f"-c search_path={schema}"}, max_size=SENDERS
    )
    app = App(connector=connector)
    seen = set()

    @app.task(queue="bench", name="note")
    async def note(number: int, body: str) -> None:
        seen.add(number)

    async with app.open_async():
        async with connector.pool.connection() as connection:
            await connection.execute(f"CREATE SCHEMA {schema}")
            await connection.execute(RECORD)
        await app.schema_manager.apply_schema_async()

        async def write(number: int) -> None:
            async with connector.pool.connection() as connection, connection.transaction():
                await connection.execute("INSERT INTO record VALUES (%s, %s)", (number, BODY))
                await note.configure(connection=connection).defer_async(number=number, body=BODY)

        wrote = await filled(count, write)
        ran = await timed(
            count,
            app.run_worker_async(
                wait=False, concurrency=concurrency, install_signal_handlers=False
            ),
        )
        assert len(seen) == count
        async with connector.pool.connection() as connection:
            done = await connection.execute(
                "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
            )
            assert await done.fetchone() == (count,)
    return {"wrote": wrote, "ran": ran}


def main() -> None:
    queues: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
        "wavehook": wavehook,
        "pgqueuer": pgqueuer,
        "pgqueuer-uncapped": partial(pgqueuer, capped=False),
        "procrastinate": procrastinate,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queue", choices=queues)
    parser.add_argument("--url", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    args = parser.parse_args()
    import uvloop

    found = uvloop.run(queues[args.queue](args.url, args.schema, args.count, args.concurrency))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
