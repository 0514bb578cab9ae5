"""What the suites of serverless targets share: settings on a real PostgreSQL, and what is sent."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from receiver.event import Dispatch, Event
from receiver.stores.postgres import PostgresStore
from submitter.ledger.base import Intent, Limits
from submitter.ledger.postgres import PostgresLedger
from submitter.prediction import Prediction
from submitter.submit.context_token import Seal
from tests.support.asgi import SECRET, signed
from tests.support.postgres_server import Server

TOKEN = "a-long-random-text"
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
PATH = "/webhooks/wavespeed"

HANDLERS = """
import asyncio
from pathlib import Path
from receiver import on

FOLDER = Path(__file__).parent

@on()
async def note(event, context):
    with (FOLDER / "handled").open("a") as file:
        file.write(f"{event.subject}\\n")
    if (FOLDER / "hang").exists():
        await asyncio.sleep(3600)
"""


class Target:
    """One deployment: its settings, its database, and what its handler has done.

    Args:
        server: a schema of a real PostgreSQL.
        folder: with the handlers.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.key = Fernet.generate_key().decode()
        (folder / "my_handlers.py").write_text(HANDLERS)
        self.environ = {
            "WAVEHOOK_DATABASE": server.url,
            "WAVEHOOK_DATABASE_SCHEMA": server.schema,
            "WAVEHOOK_WAVESPEED_SECRETS": SECRET,
            "WAVEHOOK_SEAL_KEYS": self.key,
            "WAVEHOOK_ADMIN_TOKEN": TOKEN,
            "WAVEHOOK_HANDLERS": "my_handlers",
            "WAVEHOOK_DISPATCH": "inline",
        }

    @property
    def handled(self) -> list[str]:
        """The tasks that the handler was called with, in order."""
        path = self.folder / "handled"
        return path.read_text().splitlines() if path.exists() else []

    def token(self, context: Any = None, submission: str | None = None) -> str:
        """The last part of a webhook URL."""
        seal = Seal([self.key])
        return seal.seal(context, model=MODEL, submission=submission, now=time.time())

    @asynccontextmanager
    async def store(self) -> AsyncIterator[PostgresStore]:
        """The inbox, as another machine sees it."""
        store = PostgresStore(self.server.url, schema=self.server.schema, clock="server")
        await store.open()
        yield store
        await store.close()

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[PostgresLedger]:
        """The ledger, as another machine sees it."""
        ledger = PostgresLedger(self.server.url, schema=self.server.schema)
        await ledger.open()
        yield ledger
        await ledger.close()

    async def submitted(self, key: str, task: str) -> None:
        """A submission of another machine, that waits for its result."""
        now = time.time()
        found = Prediction.parse({"id": task, "status": "created"})
        assert found is not None
        async with self.ledger() as ledger:
            await ledger.intend(Intent(key, MODEL, {}, digest=key, until=now + 60), Limits(), now)
            await ledger.accept(key, found, now, expected_at=now + 300)

    async def status(self, key: str) -> str | None:
        """What the ledger says of a submission."""
        async with self.ledger() as ledger:
            return (await ledger.find([key]))[key].status

    async def dispatch(self, task: str) -> Dispatch:
        """The one dispatch of a task's event."""
        async with self.store() as store:
            (found,) = await store.dispatches(f"wavespeed:{task}:completed")
            return found

    async def event(self, task: str) -> Event | None:
        """A task's event, as it is stored."""
        async with self.store() as store:
            return await store.event(f"wavespeed:{task}:completed")


def body(task: str = "task-1") -> bytes:
    """What a webhook brings; its bytes are no plain JSON's, and one is no ASCII."""
    found = {"id": task, "status": "completed", "model": MODEL, "outputs": ["https://x/é.mp4"]}
    return json.dumps(found, ensure_ascii=False, indent=1).encode()


def headers(body: bytes, **sign: Any) -> dict[str, str]:
    """The headers of a genuine webhook, as senders write them."""
    made = signed(body, **{"at": time.time()} | sign)
    return {name.decode().title(): value.decode() for name, value in made}


def bearer(token: str = TOKEN) -> Mapping[str, str]:
    """The header of who may use `/api`."""
    return {"Authorization": f"Bearer {token}"}
