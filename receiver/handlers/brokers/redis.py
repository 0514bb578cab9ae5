"""`redis`: appends the event to a Redis stream, and waits until Redis has it.

    [handlers.events]
    use = "redis"
    url = "redis://redis.example:6379/0"    # rediss:// for TLS, unix:///path for a socket; required
    stream = "wavehook"                     # a template, see `topic`; this is the default
    maxlen = 100000                         # about how many entries stay; default all
    ca, cert, key                           # files for TLS, see `connection`
    mode, source                            # of the CloudEvent, see `cloudevent`

In binary mode, the default here, the entry's fields are the attributes of the CloudEvent and its
`data` as JSON. In structured mode there is one field, `event`. Events of concurrent runs are
appended in one pipeline.

Done: Redis has appended the event, and it is on disk as far as Redis's own `appendfsync` says.
The result is `{"stream": …, "entry": …}`.

Retried: the key exists and is not a stream, Redis refuses the command (for example because its
memory is full), the connection fails, or there is no answer before the handler's `timeout`. No
failure is final.

Duplicates: Redis does not detect them. After a lost answer the stream may hold the event twice,
with the same `id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.batching import SendBatcher
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
    tls_context,
)
from receiver.handlers.brokers.topic import EXAMPLE_EVENT, TopicRules, TopicTemplate
from receiver.handlers.settings import read
from submitter.prediction import JSON

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_PIPELINE_ENTRIES = 256

URL_RULES = UrlRules(
    broker="Redis",
    ports={"redis": 6379, "rediss": 6379, "unix": 0},
    expected="redis://host:port/0, rediss://host:port/0 or unix:///path",
    path=True,
)
TOPIC_RULES = TopicRules(
    separator=".",
    pattern=re.compile(r"[!-~]+"),
    max_chars=1024,
    expected="the name of a stream, such as wavehook, without spaces",
)
_Fields = dict[str, bytes | str]


class RedisSettings(CloudEventSettings, TlsSettings):
    """The settings of the handler."""

    mode: Literal["structured", "binary"] = "binary"
    url: Annotated[str, AfterValidator(URL_RULES.check)] = Field(
        repr=False, description="Redis's URL, such as redis://127.0.0.1:6379/0"
    )
    stream: Annotated[str, AfterValidator(TOPIC_RULES.check)] = "wavehook"
    maxlen: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _encrypted(self) -> RedisSettings:
        if (self.ca or self.cert) and not self.url.startswith("rediss:"):
            raise ValueError("a `url` with rediss:// beside `ca` or `cert`")
        return self


class RedisHandler:
    """Appends events to streams."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._label = URL_RULES.label(settings.url)
        self._stream = TopicTemplate(settings.stream, TOPIC_RULES)
        self._encoder = CloudEventEncoder(settings)
        self._connection: SharedConnection[Redis] = SharedConnection(
            self._label, self._connect, lambda client: client.aclose()
        )
        self._batcher: SendBatcher[tuple[str, _Fields], str] = SendBatcher(
            self._append, max_items=MAX_PIPELINE_ENTRIES, max_calls=1
        )

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        stream = self._stream.fill(event)
        fields = _fields(self._encoder.message(event))
        entry = await self._connection.confirmed(
            context.deadline, self._batcher.put((stream, fields))
        )
        return {"stream": stream, "entry": entry}

    async def check(self) -> str:
        """Find the stream; appends nothing."""
        from redis.exceptions import RedisError

        stream = self._stream.fill(EXAMPLE_EVENT)
        client = await self._connection.get()
        try:
            kind = str(await client.type(stream))
            if kind not in ("none", "stream"):
                raise Retry(f"{self._label}: {stream} is a {kind}, expected a stream or nothing")
            length = await client.xlen(stream)
        except (RedisError, OSError) as error:
            raise self._retry(error, stream) from None
        if kind == "none":
            return f"{self._label}: {stream} does not exist yet; the first event creates it"
        return f"{self._label}: the stream {stream} has {length} entries"

    async def close(self) -> None:
        await self._batcher.close()
        await self._connection.close()

    async def _connect(self) -> Redis:
        """Make the client; it connects at its first command, and again after a cut."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry as ClientRetry
        from redis.backoff import NoBackoff

        settings = self._settings
        files = {
            "ssl_ca_certs": settings.ca,
            "ssl_certfile": settings.cert,
            "ssl_keyfile": settings.key,
        }
        options: dict[str, Any] = {name: str(file) for name, file in files.items() if file}
        return Redis.from_url(
            settings.url,
            decode_responses=True,
            client_name="wavehook",
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=HEARTBEAT_INTERVAL_S,
            # The dispatcher retries, not the client.
            retry=ClientRetry(NoBackoff(), 0),
            **options,
        )

    async def _append(self, entries: Sequence[tuple[str, _Fields]]) -> list[str | Exception]:
        from redis.exceptions import RedisError

        maxlen = self._settings.maxlen
        client = await self._connection.get()
        pipeline = client.pipeline(transaction=False)
        for stream, fields in entries:
            pipeline.xadd(stream, fields, maxlen=maxlen, approximate=True)  # type: ignore[arg-type]
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [self._retry(error, stream) for stream, _ in entries]
        return [
            self._retry(answer, stream) if isinstance(answer, Exception) else answer
            for answer, (stream, _) in zip(answers, entries, strict=True)
        ]

    def _retry(self, error: Exception, stream: str) -> Retry:
        from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

        text = str(error)
        if isinstance(error, AuthenticationError):
            reason = "it refuses the user or password in `url`"
        elif isinstance(error, ResponseError) and text.startswith("WRONGTYPE"):
            reason = f"{stream} is not a stream; name another one in `stream`"
        elif isinstance(error, ResponseError):
            # Redis's own text names a command or a key, never a value.
            reason = text
        elif isinstance(error, ConnectionError):
            # The text is the host's name and the system's reason.
            reason = f"no connection, or it broke ({text})"
        else:
            reason = type(error).__name__
        return Retry(f"{self._label}: {reason}")


def create(name: str, settings: Mapping[str, Any]) -> RedisHandler:
    """Make the handler."""
    import redis  # noqa: F401 - a missing extra shows at start

    chosen = read(RedisSettings, name, settings)
    # redis-py opens the files itself; this finds a fault at start.
    tls_context(name, chosen)
    return RedisHandler(chosen)


def _fields(message: BrokerMessage) -> _Fields:
    if not message.attributes:
        return {"event": message.body}
    return {**message.attributes, "datacontenttype": message.content_type, "data": message.body}
