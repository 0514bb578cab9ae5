"""Receivers and workers on one schema of a PostgreSQL, each as on a machine of its own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from receiver.event import Attempt, Dispatch
from receiver.stores.postgres import PostgresStore
from tests.crash.receiving import PATIENCE, WAVEHOOK, Receiver, event_id, launch, notes, process
from tests.support.postgres_schemas import connected
from tests.support.waiting import until

SEAL_KEY = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"""Any 32 bytes: all of a fleet have the same."""

NOTHING: Mapping[str, str] = {}

SKEWED = ("-m", "tests.crash.clock_skew")
"""`wavehook` on a machine with a wrong clock; the seconds come first."""


class Fleet:
    """The processes.

    Attributes:
        url: of the server; the sessions of this fleet are named like its schema.

    Args:
        folder: where all of them work, and leave their notes.
        url: of the server.
        schema: of this fleet alone.
        stack: ends the processes.
    """

    def __init__(self, folder: Path, url: str, schema: str, stack: AsyncExitStack) -> None:
        self.url = f"{url}{'&' if '?' in url else '?'}application_name={schema}"
        self.schema = schema
        self._plain = url
        self.processes: list[Receiver] = []
        self._folder = folder
        self._stack = stack

    @property
    def settings(self) -> dict[str, str]:
        """What all of them are told."""
        return {
            "WAVEHOOK_DATABASE": self.url,
            "WAVEHOOK_DATABASE_SCHEMA": self.schema,
            "WAVEHOOK_SEAL_KEYS": SEAL_KEY,
            "WAVEHOOK_DISPATCH": "external",
        }

    async def begin(
        self, *words: str, program: tuple[str, ...] = WAVEHOOK, more: Mapping[str, str] = NOTHING
    ) -> Receiver:
        """Start a command, and do not wait for it; `more` are settings."""
        begun = await launch(self._folder, (*program, *words), **{**self.settings, **more})
        self._stack.push_async_callback(begun.close)
        self.processes.append(begun)
        return begun

    async def receiver(self, *, program: tuple[str, ...] = WAVEHOOK) -> Receiver:
        """One that receives."""
        return await (await self.begin("serve", program=program)).started()

    async def worker(self, *, program: tuple[str, ...] = WAVEHOOK) -> Receiver:
        """One that handles."""
        return await (await self.begin("worker", program=program)).started("worker.started")

    async def run(self, *words: str, more: Mapping[str, str] = NOTHING) -> list[Any]:
        """Run a command with `--json` to its end; what it printed, an object a line."""
        command = (*WAVEHOOK, *words, "--json")
        running = await process(self._folder, command, **{**self.settings, **more})
        printed, told = await asyncio.wait_for(running.communicate(), PATIENCE)
        assert running.returncode == 0, told.decode()
        return [json.loads(line) for line in printed.splitlines()]

    async def start(self, receivers: int, workers: int) -> tuple[list[Receiver], list[Receiver]]:
        """So many of each, all at once."""
        both = await asyncio.gather(
            *(self.receiver() for _ in range(receivers)), *(self.worker() for _ in range(workers))
        )
        return both[:receivers], both[receivers:]

    @asynccontextmanager
    async def store(self) -> AsyncIterator[PostgresStore]:
        """The store of the processes, seen from outside."""
        store = PostgresStore(self.url, schema=self.schema)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def cut(self) -> int:
        """End every session of this fleet; answers how many there were."""
        async with connected(self._plain) as connection:
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            return int(
                await connection.fetchval(f"{ended}WHERE application_name = $1", self.schema)
            )

    async def all_handled(self) -> None:
        """Wait until nothing is open or dead."""
        async with self.store() as store:

            async def empty() -> bool:
                return not (await store.stats()).depth

            await until(empty)

    async def stored(self) -> list[str]:
        """The ids of all events, the newest first."""
        async with self.store() as store:
            return [listed.event.id for listed in await store.events(limit=10_000)]

    async def dispatches(self, subject: str) -> dict[str, Dispatch]:
        """The dispatches of one event by handler."""
        async with self.store() as store:
            return {each.handler: each for each in await store.dispatches(event_id(subject))}

    async def attempts(self, subject: str, handler: str) -> list[Attempt]:
        """The attempts of one dispatch."""
        async with self.store() as store:
            found = await store.attempts(event_id(subject))
        return [attempt for attempt in found if attempt.handler == handler]

    def ran(self, step: str | None = None) -> Counter[str]:
        """How often handlers ran, by key."""
        return Counter(note["key"] for note in notes(self._folder, step))

    @property
    def words(self) -> str:
        """All that the processes have said."""
        return "".join(each.text for each in self.processes)


def keys(subjects: set[str], *handlers: str) -> set[str]:
    """The keys of their dispatches."""
    return {f"{event_id(subject)}/{name}" for subject in subjects for name in handlers}
