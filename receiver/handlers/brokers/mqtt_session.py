"""A connection to an MQTT broker: a client with a thread of its own, which tells the event loop.

Imported where a handler connects: it needs the extra `mqtt`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from receiver.errors import GiveUp, Retry
from receiver.handlers.brokers.cloudevent import Message
from receiver.handlers.brokers.connection import CONNECT, HEARTBEAT, reason

IN_FLIGHT = 20
"""Messages on their way at once, unless the broker takes fewer."""

_HEAD = 3072
"""Bytes that a topic and its properties may need beside a body."""


class Session:
    """One connection.

    Args:
        where: which broker, for errors; no secret in it.
        v5: MQTT 5, else 3.1.1.
        lost: called on the event loop once the connection is gone.
    """

    def __init__(self, where: str, *, v5: bool, lost: Callable[[Session], None]) -> None:
        self._where = where
        self._v5 = v5
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._awaited: dict[int, asyncio.Future[ReasonCode]] = {}
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._largest: int | None = None
        self._gone = False
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            # A connection that broke is replaced by the next event's, not by the client.
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = CONNECT / 2
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.on_connect = self._connected
        self._client.on_publish = self._acknowledged
        self._client.on_disconnect = self._disconnected

    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        """Connect, and wait for the broker's welcome.

        Raises:
            Retry: there is no connection, or we are not let in.
        """
        try:
            await asyncio.to_thread(self._dial, url, tls)
        except OSError as error:
            raise Retry(f"{self._where}: {reason(error)}") from None
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
        properties = _properties(message) if self._v5 else None
        async with self._places:
            # The client itself would keep it for a connection to come.
            if self._gone:
                raise Retry(f"{self._where}: the connection broke")
            sent = self._client.publish(topic, message.body, 1, retain, properties)
            future: asyncio.Future[ReasonCode] = self._loop.create_future()
            self._awaited[sent.mid] = future
            try:
                return await future
            finally:
                del self._awaited[sent.mid]

    async def close(self) -> None:
        """Say goodbye, and end the thread."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _dial(self, url: str, tls: ssl.SSLContext | None) -> None:
        """What blocks: names, certificates, the connection."""
        address = urlsplit(url)
        if address.username:
            password = unquote(address.password) if address.password else None
            self._client.username_pw_set(unquote(address.username), password)
        port = 1883
        if address.scheme == "mqtts":
            port = 8883
            secure = tls or ssl.create_default_context()
            secure.sslsocket_class = _Closing
            self._client.tls_set_context(secure)
        self._client.connect(address.hostname or "", address.port or port, keepalive=HEARTBEAT)

    # These three are called in the client's thread.

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
        self._gone = True
        error = Retry(f"{self._where}: the connection broke")
        if not self._welcome.done():
            self._welcome.set_exception(error)
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(error)
        self._lost(self)


class _Closing(ssl.SSLSocket):
    """Does not stay open after a handshake that failed, as paho leaves it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _properties(message: Message) -> Properties:
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's own
    made.ContentType = message.content_type
    made.PayloadFormatIndicator = 1
    if message.attributes:
        made.UserProperty = list(message.attributes.items())
    return made
