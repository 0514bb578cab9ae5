"""`mqtt`: publishes the event with QoS 1, and waits until the broker has acknowledged it.

    [handlers.events]
    use = "mqtt"
    url = "mqtt://user:password@mqtt.example:1883"      # mqtts:// for TLS
    topic = "wavehook/{type}"               # see `receiver.handlers.topic`; dots of a type divide
    retain = false                          # the broker keeps the last one of each topic
    mandatory = true                        # one that nobody subscribes to is not done
    version = "5"                           # or "3.1.1"

The body is a CloudEvent; see `receiver.handlers.cloudevent`. In binary mode its attributes are
user properties, which MQTT 3.1.1 does not have.

Done means that the broker has it. A broker gives it to who subscribes then, and to sessions that
it keeps; nobody else gets it later, unless it is retained. So where a broker says that nobody
subscribes (MQTT 5), it is tried again; `mandatory = false` lets it go. A broker does not know an
event again: where an answer was lost it comes twice, with one `id`.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.link import CONNECT, HEARTBEAT, Link, end, reason, within
from receiver.handlers.settings import read
from receiver.handlers.tls import Certificates
from receiver.handlers.tls import context as tls_context
from receiver.handlers.topic import Form, Topic

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

NOBODY = 0x10
"""No matching subscribers
(https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901124)."""

IN_FLIGHT = 20
"""Messages on their way at once, unless the broker takes fewer."""

_HEAD = 3072
"""Bytes that a topic and its properties may need beside a body."""

_FORM = Form(
    divider="/",
    legal=re.compile(r"(?!\$)[!-\"$-*,-~]+"),
    limit=1024,
    words="a topic such as wavehook/{type}, without spaces and wildcards",
)


def place(url: str) -> str:
    """Where a URL leads, without who we are there.

    Raises:
        ValueError: it cannot be one.
    """
    expected = "mqtt://host:1883 or mqtts://host:8883"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (8883 if parts.scheme == "mqtts" else 1883)
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.query:
        raise ValueError(expected)
    return f"MQTT at {host}:{port}"


def _url(url: str) -> str:
    place(url)
    return url


class Settings(Shape, Certificates):
    """The handler's own settings."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        repr=False, description="where the broker is, such as mqtt://127.0.0.1:1883"
    )
    topic: Annotated[str, AfterValidator(_FORM.check)] = "wavehook/{type}"
    retain: bool = False
    mandatory: bool = True
    version: Literal["5", "3.1.1"] = "5"

    @model_validator(mode="after")
    def _fitting(self) -> Settings:
        if self.mode == "binary" and self.version != "5":
            raise ValueError('`version = "5"` beside `mode = "binary"`, for its user properties')
        if (self.ca or self.cert) and not self.url.startswith("mqtts:"):
            raise ValueError("a `url` with mqtts:// beside `ca` or `cert`")
        return self


class _Closing(ssl.SSLSocket):
    """Does not stay open after a handshake that failed, as paho leaves it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Session:
    """One connection: a client with a thread of its own, which tells the event loop.

    Args:
        settings: of the handler.
        tls: for mqtts.
        lost: called on the event loop once the connection is gone.
    """

    def __init__(
        self, settings: Settings, tls: ssl.SSLContext | None, lost: Callable[[Session], None]
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self._loop = asyncio.get_running_loop()
        self._lost = lost
        self._v5 = settings.version == "5"
        self._where = place(settings.url)
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._awaited: dict[int, asyncio.Future[ReasonCode]] = {}
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._largest: int | None = None
        self._client: Client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311,
            # A connection that broke is replaced by the next event's, not by the client.
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = CONNECT / 2
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.on_connect = self._connected
        self._client.on_publish = self._acknowledged
        self._client.on_disconnect = self._disconnected
        self._address = urlsplit(settings.url)
        if self._address.username:
            password = unquote(self._address.password) if self._address.password else None
            self._client.username_pw_set(unquote(self._address.username), password)
        if self._address.scheme == "mqtts":
            secure = tls or ssl.create_default_context()
            secure.sslsocket_class = _Closing
            self._client.tls_set_context(secure)

    async def open(self) -> None:
        """Connect, and wait for the broker's welcome."""
        secure = self._address.scheme == "mqtts"
        port = self._address.port or (8883 if secure else 1883)
        await asyncio.to_thread(
            self._client.connect, self._address.hostname or "", port, keepalive=HEARTBEAT
        )
        self._client.loop_start()
        await self._welcome

    async def publish(self, topic: str, message: Message, *, retain: bool) -> ReasonCode:
        """Send a message; gives the broker's answer to it.

        Raises:
            Retry: the connection is gone.
            GiveUp: the broker takes no message of this size.
        """
        if self._largest is not None and len(message.body) + _HEAD > self._largest:
            raise GiveUp(f"{self._where}: the broker takes {self._largest} bytes at most")
        properties = self._properties(message) if self._v5 else None
        async with self._places:
            sent = self._client.publish(topic, message.body, 1, retain, properties)
            if sent.rc:
                raise Retry(f"{self._where}: the connection broke")
            future: asyncio.Future[ReasonCode] = self._loop.create_future()
            self._awaited[sent.mid] = future
            try:
                return await future
            finally:
                del self._awaited[sent.mid]

    def end(self) -> None:
        """Say goodbye, and end the thread. Blocks for a moment."""
        self._client.disconnect()
        self._client.loop_stop()

    def _properties(self, message: Message) -> Properties:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's own
        made.ContentType = message.content_type
        made.PayloadFormatIndicator = 1
        if message.attributes:
            made.UserProperty = list(message.attributes.items())
        return made

    # From here on in the client's thread.

    def _connected(
        self, _: Client, __: Any, ___: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._tell(self._welcomed, code, properties)

    def _acknowledged(self, _: Client, __: Any, mid: int, code: ReasonCode, ___: Any) -> None:
        self._tell(self._settle, mid, code)

    def _disconnected(self, *_: Any) -> None:
        self._tell(self._fail)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    # From here on on the event loop.

    def _welcomed(self, code: ReasonCode, properties: Properties | None) -> None:
        if self._welcome.done():
            return
        self._largest = getattr(properties, "MaximumPacketSize", None)
        fewer = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
        self._places = asyncio.Semaphore(min(IN_FLIGHT, fewer))
        if code.is_failure:
            self._welcome.set_exception(Retry(f"{self._where}: it refuses us ({code})"))
        else:
            self._welcome.set_result(None)

    def _settle(self, mid: int, code: ReasonCode) -> None:
        future = self._awaited.get(mid)
        if future is not None and not future.done():
            future.set_result(code)

    def _fail(self) -> None:
        error = Retry(f"{self._where}: the connection broke")
        if not self._welcome.done():
            self._welcome.set_exception(error)
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(error)
        self._lost(self)


class Mqtt:
    """Publishes events with QoS 1."""

    def __init__(
        self,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._where = place(settings.url)
        self._topic = Topic(settings.topic, _FORM)
        self._envelopes = Envelopes(settings)
        self._link = Link(self._where, self._connect, _disconnect)

    async def __call__(self, event: Event, context: Context) -> None:
        """Publish the event; see the module's docstring for what done means."""
        topic = self._topic.fill(event)
        message = self._envelopes.message(event)
        given = self._settings
        async with within(context.deadline - self._clock(), self._where):
            session = await self._link.get()
            code = await session.publish(topic, message, retain=given.retain)
        if code.is_failure:
            raise Retry(f"{self._where}: it refuses {topic} ({code})")
        if code.value == NOBODY and given.mandatory and not given.retain:
            raise Retry(
                f"{self._where}: nobody subscribes to {topic}, and it would be lost; "
                "`retain = true` keeps it there, `mandatory = false` lets it go"
            )

    async def check(self) -> str:
        """Connect, without publishing anything."""
        await self._link.get()
        return f"{self._where}: it lets us in; what we may publish shows with the first event"

    async def close(self) -> None:
        """Let the connection go; the next event makes a new one."""
        await self._link.close()

    async def _connect(self) -> Session:
        session = Session(self._settings, self._tls, self._link.drop)
        try:
            await session.open()
        except BaseException as error:
            await end(_disconnect(session))
            if isinstance(error, OSError):
                raise Retry(f"{self._where}: {reason(error)}") from None
            raise
        return session


def create(name: str, settings: Mapping[str, Any]) -> Mqtt:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import paho.mqtt.client  # noqa: F401 - so that it is missed at start

    chosen = read(Settings, name, settings)
    return Mqtt(chosen, tls_context(name, chosen))


async def _disconnect(session: Session) -> None:
    await asyncio.to_thread(session.end)
