"""What the web suites send with: WaveSpeedAI's signature, and a server's side of a request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from receiver.event import Event, Receipt
from receiver.stores.base import Plan, Stats
from receiver.stores.memory import MemoryStore

NOW = 1_800_000_000.0
SECRET = "whsec_one"
OLD_SECRET = "whsec_before"
OTHER_SECRET = "whsec_of_another_source"
BODY = b'{"id": "task-1", "status": "completed", "model": "kwaivgi/kling-v2.1-i2v-standard"}'
PATH = "/webhooks/wavespeed"
EVENT_ID = "wavespeed:task-1:completed"

Headers = list[tuple[bytes, bytes]]


def signature(body: bytes, message: str, at: float, secret: str) -> str:
    """The hex digest, by the vendor's recipe."""
    key = secret.removeprefix("whsec_").encode()
    content = b"%b.%d.%b" % (message.encode(), int(at), body)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def signed(
    body: bytes = BODY, *, message: str = "msg-1", at: float = NOW, secret: str = SECRET
) -> Headers:
    """The headers of a genuine webhook."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"webhook-id", message.encode()),
        (b"webhook-timestamp", b"%d" % at),
        (b"webhook-signature", b"v3," + signature(body, message, at, secret).encode()),
    ]


def replaced(headers: Headers, name: bytes, *values: bytes) -> Headers:
    """The headers with one of them replaced, repeated or left out."""
    return [each for each in headers if each[0] != name] + [(name, value) for value in values]


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The one value of a header."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """The server's side of one request: what it hands over, and what it was told.

    Args:
        chunks: of the body; None instead of a chunk is a sender that says nothing more.
        complete: the last chunk ends the body; else the sender leaves before its end.
    """

    def __init__(self, chunks: Sequence[bytes | None], *, complete: bool = True) -> None:
        self.chunks = list(chunks)
        self.complete = complete
        self.received = 0
        self.read_before_the_answer = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        """What the app awaits."""
        if self.received == len(self.chunks):
            return {"type": "http.disconnect"}
        chunk = self.chunks[self.received]
        if chunk is None:
            await asyncio.Event().wait()
        self.received += 1
        more = self.received < len(self.chunks) or not self.complete
        return {"type": "http.request", "body": chunk, "more_body": more}

    async def send(self, message: Message) -> None:
        """What the app answers with."""
        if not self.sent:
            self.read_before_the_answer = self.received
        self.sent.append(message)

    def answer(self) -> Answer:
        """The whole answer."""
        start, *rest = self.sent
        assert start["type"] == "http.response.start"
        assert rest
        assert not rest[-1].get("more_body")
        body = b"".join(message.get("body", b"") for message in rest)
        answer = Answer(start["status"], list(start["headers"]), body)
        length = answer.header(b"content-length")
        assert length is None or int(length) == len(body)
        return answer


def scope(
    path: str = PATH, headers: Iterable[tuple[bytes, bytes]] = (), method: str = "POST", **more: Any
) -> dict[str, Any]:
    """An ASGI scope."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.1", 1234),
        "server": ("testserver", 443),
    } | more


async def serve(app: ASGIApp, connection: Connection, scope: dict[str, Any]) -> None:
    """One request, and the turn of the event loop after it, in which its line is written."""
    await app(scope, connection.receive, connection.send)
    await asyncio.sleep(0)


async def request(
    app: ASGIApp,
    path: str = PATH,
    headers: Iterable[tuple[bytes, bytes]] = (),
    chunks: Sequence[bytes | None] = (b"",),
    method: str = "POST",
    **more: Any,
) -> Answer:
    """One request, answered."""
    connection = Connection(chunks)
    await serve(app, connection, scope(path, headers, method, **more))
    return connection.answer()


async def post(app: ASGIApp, body: bytes = BODY, path: str = PATH, **sign: Any) -> Answer:
    """One genuine webhook, answered."""
    return await request(app, path, signed(body, **sign), [body])


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[list[Message]]:
    """A server's lifespan around its requests."""
    inbound: asyncio.Queue[Message] = asyncio.Queue()
    outbound: asyncio.Queue[Message] = asyncio.Queue()
    sent: list[Message] = []
    await inbound.put({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, inbound.get, outbound.put))
    sent.append(await outbound.get())
    yield sent
    await inbound.put({"type": "lifespan.shutdown"})
    try:
        await task
    finally:
        while not outbound.empty():
            sent.append(outbound.get_nowait())


class Inbox(MemoryStore):
    """The reference store, which tells what was asked of it, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failure: Exception | None = None
        self.hangs = False

    async def _asked(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure

    async def open(self) -> None:
        await self._asked("open")
        await super().open()

    async def close(self) -> None:
        self.calls.append("close")
        await super().close()

    async def add(self, event: Event, plan: Plan) -> Receipt:
        await self._asked("add")
        return await super().add(event, plan)

    async def event(self, event_id: str) -> Event | None:
        await self._asked("event")
        return await super().event(event_id)

    async def ping(self) -> None:
        await self._asked("ping")
        await super().ping()

    async def stats(self) -> Stats:
        await self._asked("stats")
        return await super().stats()


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in found if event is None or line["event"] == event]

    def line(self, event: str) -> dict[str, Any]:
        (found,) = self.lines(event)
        return found
