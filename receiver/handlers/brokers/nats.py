"""`nats`: publishes the event to NATS JetStream, and waits until a stream has stored it.

    [handlers.events]
    use = "nats"
    url = "nats://nats.example:4222"        # or a list for a cluster; tls:// for TLS; user and
                                            # password, or a token, are part of the URL; required
    subject = "wavehook.{type}"             # a template, see `topic`; this is the default
    stream = "WAVEHOOK"                     # the only stream that may store it; default any
    create_stream = false                   # true: the first event creates `stream` if missing
    ca, cert, key                           # files for TLS, see `connection`
    mode, source                            # of the CloudEvent, see `cloudevent`

Done: a stream has acknowledged the event. The result is
`{"stream": …, "seq": …, "duplicate": …}`.

Retried: no stream takes the subject, the stream refuses it (for example because it is full), the
connection fails, or there is no acknowledgement before the handler's `timeout`. Not retried: the
event is larger than the server or the stream accepts.

Duplicates: `Nats-Msg-Id` is the idempotency key. The stream drops a second copy within its
duplicate window: 2 minutes by default, 15 minutes for a stream that this handler created.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import (
    BrokerMessage,
    CloudEventEncoder,
    CloudEventSettings,
)
from receiver.handlers.brokers.connection import (
    CONNECT_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    SharedConnection,
    TlsSettings,
    UrlRules,
    close_quietly,
    closed_on_failure,
    safe_reason,
    tls_context,
)
from receiver.handlers.brokers.topic import EXAMPLE_EVENT, TopicRules, TopicTemplate
from receiver.handlers.envelope import ascii_key
from receiver.handlers.settings import SomeTexts, matching, read
from submitter.prediction import JSON

if TYPE_CHECKING:
    import ssl

    from nats.aio.msg import Msg

DUPLICATE_WINDOW_S = 15 * 60
"""Of a stream that this handler creates: longer than the longest wait between two attempts under
the default retry policy."""

_MESSAGE_TOO_LARGE = 10054
"""https://github.com/nats-io/nats-server/blob/main/server/errors.json"""

URL_RULES = UrlRules(
    broker="NATS",
    ports={"nats": 4222, "tls": 4222},
    expected="nats://host:port or tls://host:port",
)
# Visible ASCII without wildcards, in levels; a name that begins with $ is the server's own.
TOPIC_RULES = TopicRules(
    separator=".",
    pattern=re.compile(r"(?!\$)[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*"),
    max_chars=1024,
    expected="a subject such as wavehook.{type}, without spaces and wildcards",
)
_StreamName = Annotated[
    str, matching(r"[A-Za-z0-9_-]{1,255}", "a stream name of letters, digits, _ and -")
]


def _urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(URL_RULES.check(url) for url in urls)


class NatsSettings(CloudEventSettings, TlsSettings):
    """The settings of the handler."""

    url: Annotated[SomeTexts, AfterValidator(_urls)] = Field(
        repr=False, description="the server's URL, such as nats://127.0.0.1:4222"
    )
    subject: Annotated[str, AfterValidator(TOPIC_RULES.check)] = "wavehook.{type}"
    stream: _StreamName | None = None
    create_stream: bool = False

    @model_validator(mode="after")
    def _can_create(self) -> NatsSettings:
        if self.create_stream and not self.stream:
            raise ValueError("`stream` beside `create_stream`: the name of the stream to create")
        if self.create_stream and not self.stream_subjects:
            raise ValueError("a `subject` that begins with a fixed level, such as wavehook.{type}")
        return self

    @property
    def stream_subjects(self) -> str:
        """The subjects of a stream for all names that `subject` can make; empty for all names."""
        template = TopicTemplate(self.subject, TOPIC_RULES)
        if template.constant:
            return template.prefix
        levels, dot, _ = template.prefix.rpartition(".")
        return f"{levels}{dot}>" if dot else ""


class NatsHandler:
    """Publishes events to JetStream."""

    def __init__(self, settings: NatsSettings, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._label = URL_RULES.label(settings.url[0])
        self._subject = TopicTemplate(settings.subject, TOPIC_RULES)
        self._encoder = CloudEventEncoder(settings)
        self._connection = SharedConnection(self._label, self._connect, NatsPublisher.close)

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        subject, message = self._subject.fill(event), self._encoder.message(event)
        return await self._connection.use(
            context.deadline,
            lambda publisher: publisher.publish(subject, message, ascii_key(context.key)),
        )

    async def check(self) -> str:
        """Find the stream that takes the subject; publishes nothing and creates no stream."""
        subject, expected = self._subject.fill(EXAMPLE_EVENT), self._settings.stream
        publisher = await self._open()
        try:
            stream = await publisher.stream_of(subject)
        finally:
            await close_quietly(publisher.close())
        if stream is None and self._settings.create_stream:
            return (
                f"{self._label}: the stream {expected} does not exist yet; "
                "the first event creates it"
            )
        if stream is None:
            raise publisher.no_stream(subject)
        if expected not in (None, stream):
            raise Retry(f"{self._label}: the stream {stream} takes {subject}, not {expected}")
        return f"{self._label}: the stream {stream} takes {subject}"

    async def close(self) -> None:
        await self._connection.close()

    async def _open(self) -> NatsPublisher:
        publisher = NatsPublisher(self._label, self._settings.stream, self._connection.drop)
        async with closed_on_failure(publisher.close):
            await publisher.open(self._settings.url, self._tls)
        return publisher

    async def _connect(self) -> NatsPublisher:
        publisher, settings = await self._open(), self._settings
        if settings.stream and settings.create_stream:
            async with closed_on_failure(publisher.close):
                await publisher.create_stream(settings.stream, settings.stream_subjects)
        return publisher


class NatsPublisher:
    """One connection, and the messages on it that wait for an acknowledgement.

    All acknowledgements arrive at one inbox, each under the number of its message. `publish_async`
    of nats-py 2.16 is not used: after a cut connection, or an answer that is not a stream's, its
    futures stay pending until the timeout (tests/contract/test_pipeline_nats.py fails with it).

    Args:
        label: the server's name for errors, without a secret.
        stream: the only stream that may store the messages; None for any.
        lost: called when the connection is closed.
    """

    def __init__(
        self, label: str, stream: str | None, lost: Callable[[NatsPublisher], None]
    ) -> None:
        from nats.aio.client import Client
        from nats.errors import Error

        self._errors = (Error, OSError)
        self._label = label
        self._stream_header = {"Nats-Expected-Stream": stream} if stream else {}
        self._lost = lost
        self._client = Client()
        self._inbox = self._client.new_inbox()
        self._numbers = count()
        self._pending: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    async def open(self, urls: Sequence[str], tls: ssl.SSLContext | None) -> None:
        """Connect to one of the servers, and subscribe to the acknowledgements.

        Raises:
            Retry: there is no connection.
        """
        options: dict[str, Any] = {} if tls is None else {"tls": tls}
        try:
            await self._client.connect(
                list(urls),
                name="wavehook",
                # The next event opens another connection; the client must not reconnect.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CONNECT_TIMEOUT_S / 2),
                ping_interval=HEARTBEAT_INTERVAL_S,
                # No buffer for a later connection: the event is sent again by its next attempt.
                pending_size=0,
                error_cb=self._client_error,
                closed_cb=self._closed,
                **options,
            )
            await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        except self._errors as error:
            raise self._retry(error) from None

    async def create_stream(self, stream: str, subjects: str) -> None:
        """Create a stream if it does not exist; an existing one is not changed.

        Raises:
            Retry: it cannot be created.
        """
        from nats.js.errors import NotFoundError

        manager = self._client.jetstream()
        try:
            try:
                await manager.stream_info(stream)
            except NotFoundError:
                await manager.add_stream(
                    name=stream, subjects=[subjects], duplicate_window=DUPLICATE_WINDOW_S
                )
        except self._errors as error:
            raise self._retry(error, f"the stream {stream} cannot be created") from None

    async def stream_of(self, subject: str) -> str | None:
        """The stream that takes a subject, if there is one.

        Raises:
            Retry: JetStream does not answer.
        """
        from nats.js.errors import NotFoundError

        try:
            return await self._client.jetstream().find_stream_name_by_subject(subject)
        except NotFoundError:
            return None
        except self._errors as error:
            raise self._retry(error, "JetStream does not answer") from None

    async def publish(self, subject: str, message: BrokerMessage, key: str) -> dict[str, JSON]:
        """Send a message, and wait until a stream has stored it.

        Args:
            subject: of the message.
            message: the CloudEvent.
            key: its idempotency key.

        Raises:
            Retry: it was not acknowledged.
            GiveUp: it is too large.
        """
        size = len(message.body)
        if size > self._client.max_payload:
            raise GiveUp(f"{self._label}: {size} bytes are more than its max_payload")
        # A percent sign is escaped again, as in the binding for HTTP: https://github.com/
        # cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
        headers = {
            name: value.replace("%", "%25") for name, value in message.headers("ce-").items()
        }
        headers |= {"Nats-Msg-Id": key, **self._stream_header}
        number = str(next(self._numbers))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._pending[number] = (subject, future)
        try:
            await self._client.publish(subject, message.body, f"{self._inbox}.{number}", headers)
            return self._result(await future, subject)
        except self._errors as error:
            raise self._retry(error) from None
        finally:
            del self._pending[number]

    def no_stream(self, subject: str) -> Retry:
        """The error when no stream takes a subject."""
        return Retry(
            f"{self._label}: no stream takes {subject}; create one that does, or set "
            "`stream` and `create_stream = true`"
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _result(self, answer: Msg, subject: str) -> dict[str, JSON]:
        if answer.headers and answer.headers.get("Status") == "503":
            raise self.no_stream(subject)
        found = _json_object(answer.data)
        if isinstance(error := found.get("error"), dict):
            code = error.get("err_code")
            text = f"{self._label}: {error.get('description')} ({code})"
            raise GiveUp(text) if code == _MESSAGE_TOO_LARGE else Retry(text)
        if not (isinstance(found.get("stream"), str) and isinstance(found.get("seq"), int)):
            raise Retry(f"{self._label}: the answer on {subject} is not from a stream")
        return {key: found.get(key, False) for key in ("stream", "seq", "duplicate")}

    async def _acknowledged(self, answer: Msg) -> None:
        _, future = self._pending.get(answer.subject.rpartition(".")[2], (None, None))
        if future is not None and not future.done():
            future.set_result(answer)

    async def _closed(self) -> None:
        self._fail(Retry(f"{self._label}: the connection broke"))
        self._lost(self)

    async def _client_error(self, error: Exception) -> None:
        """Fail the messages whose subject the server does not permit; it sends no other answer."""
        text = str(error).lower()
        if "permissions violation for publish" in text:
            for subject in {subject for subject, _ in self._pending.values()}:
                if f'"{subject.lower()}"' in text:
                    refused = f"{self._label}: this user may not publish to {subject}"
                    self._fail(Retry(refused), subject)

    def _fail(self, error: Retry, of: str | None = None) -> None:
        for subject, future in self._pending.values():
            if of in (None, subject) and not future.done():
                future.set_exception(error)

    def _retry(self, error: Exception, problem: str = "") -> Retry:
        """The error of nats-py as `Retry`; its own texts hold no address."""
        from nats.errors import Error
        from nats.js.errors import APIError

        reason = safe_reason(error)
        if isinstance(error, APIError) and error.description:
            reason = error.description
        elif isinstance(error, Error):
            reason = str(error).removeprefix("nats: ")
        text = f"{problem} ({reason})" if problem else reason
        return Retry(f"{self._label}: {text}")


def create(name: str, settings: Mapping[str, Any]) -> NatsHandler:
    """Make the handler."""
    import nats  # noqa: F401 - a missing extra shows at start

    chosen = read(NatsSettings, name, settings)
    return NatsHandler(chosen, tls_context(name, chosen))


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
