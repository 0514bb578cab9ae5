"""`nats`: publishes the event to JetStream, and waits until a stream has it.

    [handlers.events]
    use = "nats"
    url = "nats://nats.example:4222"        # a list for a cluster; user and password, or a token,
                                            # stand in it; tls:// for TLS
    subject = "wavehook.{type}"             # see `topic`
    stream = "WAVEHOOK"                     # refuse to be stored by any other
    create_stream = true                    # make it if it is not there

The body is a CloudEvent; see `cloudevent`. `Nats-Msg-Id` is the dispatch's key:
what is sent again within the stream's duplicate window (2 minutes, unless the stream says
otherwise) is not stored again. Done means that the stream has acknowledged it; the result is
`{"stream": …, "seq": …, "duplicate": …}`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.brokers.connection import Certificates, Link, end, within
from receiver.handlers.brokers.connection import context as tls_context
from receiver.handlers.brokers.topic import EXAMPLE, Form, Topic
from receiver.handlers.envelope import plain
from receiver.handlers.settings import SomeTexts, read
from submitter.prediction import JSON

if TYPE_CHECKING:
    import ssl

    from receiver.handlers.brokers.nats_publisher import Publisher

# Visible ASCII without wildcards, in tokens; what begins with $ is the server's own.
_FORM = Form(
    divider=".",
    legal=re.compile(r"(?!\$)[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*"),
    limit=1024,
    words="a subject such as wavehook.{type}, without spaces and wildcards",
)
_STREAM = r"^[A-Za-z0-9_-]{1,255}$"


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
        subject, message = self._subject.fill(event), self._envelopes.message(event)
        publishing = self._publish(subject, message, plain(context.key))
        return await within(context.deadline - self._clock(), self._where, publishing)

    async def check(self) -> str:
        """Look whether there is a stream for the subject; sends nothing, and makes none."""
        subject, wanted = self._subject.fill(EXAMPLE), self._settings.stream
        publisher = await self._open()
        try:
            found = await publisher.stream_of(subject)
        finally:
            await end(publisher.close())
        if found is None and self._settings.create_stream:
            return f"{self._where}: the stream {wanted} is not there yet, made by its first event"
        if found is None:
            raise Retry(publisher.no_stream(subject))
        if wanted not in (None, found):
            raise Retry(f"{self._where}: the stream {found} takes {subject}, and not {wanted}")
        return f"{self._where}: the stream {found} takes {subject}"

    async def close(self) -> None:
        """Let the connection go; the next event makes a new one."""
        await self._link.close()

    async def _publish(self, subject: str, message: Message, key: str) -> dict[str, JSON]:
        publisher = await self._link.get()
        return await publisher.publish(subject, message, key)

    async def _open(self) -> Publisher:
        from receiver.handlers.brokers.nats_publisher import Publisher

        publisher = Publisher(self._where, self._settings.stream, self._link.drop)
        try:
            await publisher.open(self._settings.url, self._tls)
        except BaseException:
            await end(publisher.close())
            raise
        return publisher

    async def _connect(self) -> Publisher:
        publisher, given = await self._open(), self._settings
        if given.stream and given.create_stream:
            try:
                await publisher.create(given.stream, given.subjects)
            except BaseException:
                await end(publisher.close())
                raise
        return publisher


def create(name: str, settings: Mapping[str, Any]) -> Nats:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import nats  # noqa: F401 - so that it is missed at start

    chosen = read(Settings, name, settings)
    return Nats(chosen, tls_context(name, chosen))


async def _disconnect(publisher: Publisher) -> None:
    await publisher.close()
