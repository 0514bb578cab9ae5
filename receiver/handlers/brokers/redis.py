"""`redis`: appends the event to a Redis stream.

    [handlers.events]
    use = "redis"
    url = "redis://redis.example:6379/0"    # rediss:// for TLS, unix:///path for a socket
    stream = "wavehook"                     # see `topic`
    maxlen = 100000                         # older entries go, about there; unless given, none do

The entry's fields are the attributes of a CloudEvent and its `data`, as JSON; with
`mode = "structured"` there is one field, `event`. See `cloudevent`.

What concurrent runs append goes out together, on one connection. Done means that Redis has
appended it, and has it on disk as its own `appendfsync` says; the result is
`{"stream": …, "entry": …}`. Redis does not know an event again: where an answer was lost, the
event is there twice, with one `id`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.batching import Batches
from receiver.handlers.brokers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.brokers.connection import CONNECT, HEARTBEAT, Certificates, within
from receiver.handlers.brokers.connection import context as tls_context
from receiver.handlers.brokers.topic import EXAMPLE, Form, Topic
from receiver.handlers.settings import read
from submitter.prediction import JSON

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST = 256
"""Entries that are appended in one go."""

_FORM = Form(
    divider=".",
    legal=re.compile(r"[!-~]+"),
    limit=1024,
    words="the name of a stream, such as wavehook, without spaces",
)
_Fields = dict[str, bytes | str]


def place(url: str) -> str:
    """Where a URL leads, without who we are there.

    Raises:
        ValueError: it cannot be one.
    """
    expected = "redis://host:port/0, rediss://host:port/0 or unix:///path"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme == "unix" and parts.path:
        return f"Redis at {parts.path}"
    if parts.scheme not in ("redis", "rediss") or not host:
        raise ValueError(expected)
    return f"Redis at {host}:{port}"


def _url(url: str) -> str:
    place(url)
    return url


class Settings(Shape, Certificates):
    """The handler's own settings."""

    mode: Literal["structured", "binary"] = "binary"
    url: Annotated[str, AfterValidator(_url)] = Field(
        repr=False, description="where Redis is, such as redis://127.0.0.1:6379/0"
    )
    stream: Annotated[str, AfterValidator(_FORM.check)] = "wavehook"
    maxlen: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _encrypted(self) -> Settings:
        if (self.ca or self.cert) and not self.url.startswith("rediss:"):
            raise ValueError("a `url` with rediss:// beside `ca` or `cert`")
        return self


class Streams:
    """Appends events to streams, over one connection that is kept."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._where = place(settings.url)
        self._stream = Topic(settings.stream, _FORM)
        self._envelopes = Envelopes(settings)
        self._client: Redis | None = None
        self._batches: Batches[tuple[str, _Fields], str] = Batches(self._append, most=MOST, calls=1)

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Append the event; see the module's docstring for what done means."""
        stream = self._stream.fill(event)
        fields = _fields(self._envelopes.message(event))
        left = context.deadline - self._clock()
        entry = await within(left, self._where, self._batches.put((stream, fields)))
        return {"stream": stream, "entry": entry}

    async def check(self) -> str:
        """Look what there is under the stream's name, without appending anything."""
        from redis.exceptions import RedisError

        stream = self._stream.fill(EXAMPLE)
        client = self._open()
        try:
            kind = str(await client.type(stream))
            if kind not in ("none", "stream"):
                raise Retry(f"{self._where}: {stream} is a {kind}, expected a stream or nothing")
            length = await client.xlen(stream)
        except (RedisError, OSError) as error:
            raise self._retry(error, stream) from None
        if kind == "none":
            return f"{self._where}: {stream} is not there yet, made by its first event"
        return f"{self._where}: the stream {stream} has {length} entries"

    async def close(self) -> None:
        """Let the connection go; the next event makes a new one."""
        await self._batches.close()
        closing, self._client = self._client, None
        if closing is not None:
            await closing.aclose()

    def _open(self) -> Redis:
        """The client, which connects when it is needed, and again after a cut."""
        if self._client is None:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry as Again
            from redis.backoff import NoBackoff

            given = self._settings
            files = {"ssl_ca_certs": given.ca, "ssl_certfile": given.cert, "ssl_keyfile": given.key}
            options: dict[str, Any] = {name: str(file) for name, file in files.items() if file}
            self._client = Redis.from_url(
                given.url,
                decode_responses=True,
                client_name="wavehook",
                socket_connect_timeout=CONNECT,
                socket_timeout=HEARTBEAT,
                # The dispatcher tries again.
                retry=Again(NoBackoff(), 0),
                **options,
            )
        return self._client

    async def _append(self, items: Sequence[tuple[str, _Fields]]) -> list[str | Exception]:
        from redis.exceptions import RedisError

        maxlen = self._settings.maxlen
        pipeline = self._open().pipeline(transaction=False)
        for stream, fields in items:
            pipeline.xadd(stream, fields, maxlen=maxlen, approximate=True)  # type: ignore[arg-type]
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [self._retry(error, stream) for stream, _ in items]
        return [
            self._retry(answer, stream) if isinstance(answer, Exception) else answer
            for answer, (stream, _) in zip(answers, items, strict=True)
        ]

    def _retry(self, error: Exception, stream: str) -> Retry:
        from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

        text = str(error)
        if isinstance(error, AuthenticationError):
            words = "it refuses the user or password in `url`"
        elif isinstance(error, ResponseError) and text.startswith("WRONGTYPE"):
            words = f"{stream} is no stream; name another one in `stream`"
        elif isinstance(error, ResponseError):
            # Redis's own words; they name a command or a key, and no value.
            words = text
        elif isinstance(error, ConnectionError):
            # The host's name and the system's words.
            words = f"no connection, or it broke ({text})"
        else:
            words = type(error).__name__
        return Retry(f"{self._where}: {words}")


def create(name: str, settings: Mapping[str, Any]) -> Streams:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import redis  # noqa: F401 - so that it is missed at start

    chosen = read(Settings, name, settings)
    tls_context(name, chosen)
    return Streams(chosen)


def _fields(message: Message) -> _Fields:
    if not message.attributes:
        return {"event": message.body}
    return {**message.attributes, "datacontenttype": message.content_type, "data": message.body}
