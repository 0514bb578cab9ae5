"""`nats`: publishes the event to JetStream, and waits until a stream has it.

    [handlers.events]
    use = "nats"
    url = "nats://nats.example:4222"        # a list for a cluster; user and password, or a token,
                                            # stand in it; tls:// for TLS
    subject = "wavehook.{type}"             # see `receiver.handlers.topic`
    stream = "WAVEHOOK"                     # refuse to be stored by any other
    create_stream = true                    # make it if it is not there

The body is a CloudEvent; see `receiver.handlers.cloudevent`. `Nats-Msg-Id` is the dispatch's key:
what is sent again within the stream's duplicate window (2 minutes, unless the stream says
otherwise) is not stored again. Done means that the stream has acknowledged it; the result is
`{"stream": …, "seq": …, "duplicate": …}`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.envelope import plain
from receiver.handlers.link import CONNECT, HEARTBEAT, Link, end, reason, within
from receiver.handlers.rules import SomeTexts
from receiver.handlers.settings import read
from receiver.handlers.tls import Certificates
from receiver.handlers.tls import context as tls_context
from receiver.handlers.topic import EXAMPLE, Form, Topic
from submitter.prediction import JSON

if TYPE_CHECKING:
    import ssl

    from nats.aio.client import Client
    from nats.aio.msg import Msg

WINDOW = 15 * 60
"""Seconds within which a stream that we made knows an event again: longer than the longest wait
between two attempts, unless the settings say otherwise."""

# Visible ASCII without wildcards, in tokens; what begins with $ is the server's own.
_FORM = Form(
    divider=".",
    legal=re.compile(r"(?!\$)[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*"),
    limit=1024,
    words="a subject such as wavehook.{type}, without spaces and wildcards",
)
_STREAM = r"^[A-Za-z0-9_-]{1,255}$"
_TOO_LARGE = 10054
"""https://github.com/nats-io/nats-server/blob/main/server/errors.json"""


def _urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        place(url)
    return urls


def place(url: str) -> str:
    """Where a URL leads, without who we are there.

    Raises:
        ValueError: it cannot be one.
    """
    expected = "nats://host:port or tls://host:port"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("nats", "tls") or not host or parts.path.strip("/") or parts.query:
        raise ValueError(expected)
    return f"NATS at {host}:{port}"


class Settings(Shape, Certificates):
    """The handler's own settings."""

    url: Annotated[SomeTexts, AfterValidator(_urls)] = Field(
        repr=False, description="where NATS is, such as nats://127.0.0.1:4222"
    )
    subject: Annotated[str, AfterValidator(_FORM.check)] = "wavehook.{type}"
    stream: Annotated[str, Field(pattern=_STREAM)] | None = None
    create_stream: bool = False

    @model_validator(mode="after")
    def _creatable(self) -> Settings:
        if self.create_stream and not self.stream:
            raise ValueError("`stream` beside `create_stream`, the name of what is made")
        if self.create_stream and not self.subjects:
            raise ValueError("a `subject` that begins with a name of its own, as wavehook.{type}")
        return self

    @property
    def subjects(self) -> str:
        """What a stream must take to take all that `subject` can make; empty where that is all."""
        topic = Topic(self.subject, _FORM)
        if topic.fixed:
            return topic.start
        start, dot, _ = topic.start.rpartition(".")
        return f"{start}{dot}>" if dot else ""


class Publisher:
    """One connection, and the acknowledgements that are awaited on it.

    All of them come to one subject below an inbox of its own, told apart by a number.
    """

    def __init__(self, client: Client, where: str) -> None:
        self.client = client
        self._where = where
        self._inbox = client.new_inbox()
        self._numbers = count()
        self._awaited: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    async def open(self) -> None:
        """Listen for acknowledgements."""
        await self.client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> Msg:
        """Send a message; gives the answer to it.

        Raises:
            Retry: the connection broke, or this subject is not ours.
        """
        number = str(next(self._numbers))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._awaited[number] = (subject, future)
        try:
            await self.client.publish(
                subject, body, reply=f"{self._inbox}.{number}", headers=headers
            )
            return await future
        finally:
            del self._awaited[number]

    def lost(self) -> None:
        """The connection is gone; nothing that is awaited will come."""
        self._fail(Retry(f"{self._where}: the connection broke"))

    async def _acknowledged(self, message: Msg) -> None:
        _, future = self._awaited.get(message.subject.rpartition(".")[2], (None, None))
        if future is not None and not future.done():
            future.set_result(message)

    async def told(self, error: Exception) -> None:
        """The client has something to tell; what concerns one subject fails who sends to it."""
        text = str(error).lower()
        if "permissions violation for publish" in text:
            for subject in {subject for subject, _ in self._awaited.values()}:
                if f'"{subject.lower()}"' in text:
                    self._fail(Retry(f"{self._where}: we may not publish to {subject}"), subject)

    def _fail(self, error: Retry, of: str | None = None) -> None:
        for subject, future in self._awaited.values():
            if of in (None, subject) and not future.done():
                future.set_exception(error)


class Nats:
    """Publishes events to JetStream."""

    def __init__(
        self,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._where = place(settings.url[0])
        self._subject = Topic(settings.subject, _FORM)
        self._envelopes = Envelopes(settings)
        self._link = Link(self._where, self._connect, _disconnect)

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Publish the event; see the module's docstring for what done means."""
        subject = self._subject.fill(event)
        message = self._envelopes.message(event)
        async with within(context.deadline - self._clock(), self._where):
            publisher = await self._link.get()
            answer = await self._sent(publisher, subject, message, plain(context.key))
        return self._read(answer, subject)

    async def check(self) -> str:
        """Look whether there is a stream for the subject, without sending anything."""
        from nats.errors import Error
        from nats.js.errors import NotFoundError

        subject = self._subject.fill(EXAMPLE)
        publisher = await self._link.get()
        try:
            found = await publisher.client.jetstream().find_stream_name_by_subject(subject)
        except NotFoundError:
            raise Retry(self._no_stream(subject)) from None
        except Error as error:
            raise Retry(f"{self._where}: JetStream does not answer ({_words(error)})") from None
        if self._settings.stream not in (None, found):
            wanted = self._settings.stream
            raise Retry(f"{self._where}: the stream {found} takes {subject}, and not {wanted}")
        return f"{self._where}: the stream {found} takes {subject}"

    async def close(self) -> None:
        """Let the connection go; the next event makes a new one."""
        await self._link.close()

    async def _connect(self) -> Publisher:
        from nats.aio.client import Client
        from nats.errors import Error

        client = Client()
        publisher = Publisher(client, self._where)

        async def closed() -> None:
            publisher.lost()
            self._link.drop(publisher)

        options: dict[str, Any] = {} if self._tls is None else {"tls": self._tls}
        try:
            await client.connect(
                list(self._settings.url),
                name="wavehook",
                # A connection that broke is replaced by the next event's, not by the client.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CONNECT / 2),
                ping_interval=HEARTBEAT,
                # Nothing is kept for a connection to come: its event will be sent again.
                pending_size=0,
                error_cb=publisher.told,
                closed_cb=closed,
                **options,
            )
            await publisher.open()
            if self._settings.create_stream:
                await self._create(client)
        except BaseException as error:
            await end(client.close())
            if isinstance(error, OSError | Error):
                raise Retry(f"{self._where}: {_words(error)}") from None
            raise
        return publisher

    async def _create(self, client: Client) -> None:
        """Make the stream where it is not there; one that is there stays as it is."""
        from nats.js.errors import APIError, NotFoundError

        stream = self._settings.stream or ""
        manager = client.jetstream()
        try:
            await manager.stream_info(stream)
        except NotFoundError:
            try:
                await manager.add_stream(
                    name=stream, subjects=[self._settings.subjects], duplicate_window=WINDOW
                )
            except APIError as error:
                raise Retry(
                    f"{self._where}: the stream {stream} cannot be made ({error.description})"
                ) from None

    async def _sent(self, publisher: Publisher, subject: str, message: Message, key: str) -> Msg:
        from nats.errors import Error, MaxPayloadError

        headers = {"Nats-Msg-Id": key, "content-type": message.content_type}
        for name, value in message.attributes.items():
            # As in HTTP: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/
            # nats-protocol-binding.md; all that is not visible ASCII is encoded already.
            headers[f"ce-{name}"] = value.replace("%", "%25")
        if self._settings.stream:
            headers["Nats-Expected-Stream"] = self._settings.stream
        try:
            return await publisher.publish(subject, message.body, headers)
        except MaxPayloadError:
            raise GiveUp(
                f"{self._where}: {len(message.body)} bytes are more than its max_payload"
            ) from None
        except (Error, OSError) as error:
            raise Retry(f"{self._where}: {_words(error)}") from None

    def _read(self, answer: Msg, subject: str) -> dict[str, JSON]:
        if (answer.headers or {}).get("Status") == "503":
            raise Retry(self._no_stream(subject))
        match _json(answer.data):
            case {"error": {"description": str(words), "err_code": int(code)}}:
                text = f"{self._where}: {words} ({code})"
                raise GiveUp(text) if code == _TOO_LARGE else Retry(text)
            case {"stream": str(stream), "seq": int(number)} as found:
                return {"stream": stream, "seq": number, "duplicate": found.get("duplicate", False)}
            case _:
                raise Retry(f"{self._where}: what answers on {subject} is no stream")

    def _no_stream(self, subject: str) -> str:
        return (
            f"{self._where}: no stream takes {subject}; make one that does, or set "
            "`stream` and `create_stream = true`"
        )


def create(name: str, settings: Mapping[str, Any]) -> Nats:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import nats  # noqa: F401 - so that it is missed at start

    chosen = read(Settings, name, settings)
    return Nats(chosen, tls_context(name, chosen))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


async def _disconnect(publisher: Publisher) -> None:
    await publisher.client.close()


def _words(error: BaseException) -> str:
    """NATS's own errors say what is wrong in words without addresses; others are named."""
    from nats.errors import Error

    return str(error).removeprefix("nats: ") if isinstance(error, Error) else reason(error)
