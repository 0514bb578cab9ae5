"""MQTT connection: a client of paho with a thread of its own, bridged to the event loop.

Imported when a handler connects: it needs the extra `mqtt`. No maintained asyncio client passes on
the reason code of a PUBACK, which says whether a message has a subscriber.
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
from receiver.handlers.brokers.cloudevent import BrokerMessage
from receiver.handlers.brokers.connection import (
    CONNECT_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    safe_reason,
)

MAX_IN_FLIGHT_MESSAGES = 20
"""Unless the broker accepts fewer."""

_MAX_HEADER_BYTES = 3072
"""Of the topic and the properties of a message."""


class MqttSession:
    """One connection, and the messages on it that wait for an acknowledgement.

    Args:
        label: the broker's name for errors, without a secret.
        v5: MQTT 5, else 3.1.1.
        lost: called on the event loop when the connection is closed.
    """

    def __init__(self, label: str, *, v5: bool, lost: Callable[[MqttSession], None]) -> None:
        self._label = label
        self._v5 = v5
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[int, asyncio.Future[ReasonCode]] = {}
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT_MESSAGES)
        self._max_packet_bytes: int | None = None
        self._closed = False
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            # The next event opens another connection; the client must not reconnect.
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = CONNECT_TIMEOUT_S / 2
        self._client.max_inflight_messages_set(MAX_IN_FLIGHT_MESSAGES)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect

    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        """Connect, and wait until the broker has accepted the connection.

        Raises:
            Retry: there is no connection, or the broker refuses it.
        """
        try:
            await asyncio.to_thread(self._dial, url, tls)
        except OSError as error:
            raise Retry(f"{self._label}: {safe_reason(error)}") from None
        self._client.loop_start()
        await self._connected

    async def publish(self, topic: str, message: BrokerMessage, *, retain: bool) -> ReasonCode:
        """Send a message, and return the reason code of its acknowledgement.

        Raises:
            Retry: the connection is closed.
            GiveUp: the message is larger than the broker accepts.
        """
        limit = self._max_packet_bytes
        if limit is not None and len(message.body) + _MAX_HEADER_BYTES > limit:
            raise GiveUp(f"{self._label}: the broker takes {limit} bytes at most")
        properties = _properties(message) if self._v5 else None
        async with self._in_flight:
            # The client would keep the message for a later connection.
            if self._closed:
                raise Retry(f"{self._label}: the connection broke")
            sent = self._client.publish(topic, message.body, 1, retain, properties)
            future: asyncio.Future[ReasonCode] = self._loop.create_future()
            self._pending[sent.mid] = future
            try:
                return await future
            finally:
                del self._pending[sent.mid]

    async def close(self) -> None:
        """Disconnect, and end the thread."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _dial(self, url: str, tls: ssl.SSLContext | None) -> None:
        """Resolve the name, connect and do the TLS handshake; blocks."""
        address = urlsplit(url)
        if address.username:
            password = unquote(address.password) if address.password else None
            self._client.username_pw_set(unquote(address.username), password)
        port = 1883
        if address.scheme == "mqtts":
            port = 8883
            context = tls or ssl.create_default_context()
            context.sslsocket_class = _ClosingSocket
            self._client.tls_set_context(context)
        self._client.connect(
            address.hostname or "", address.port or port, keepalive=HEARTBEAT_INTERVAL_S
        )

    # The client calls these three in its thread.

    def _on_connect(
        self, _: Client, __: Any, ___: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._call_on_loop(self._accepted, code, properties)

    def _on_publish(self, _: Client, __: Any, mid: int, code: ReasonCode, ___: Any) -> None:
        self._call_on_loop(self._acknowledged, mid, code)

    def _on_disconnect(self, *_: Any) -> None:
        self._call_on_loop(self._fail_all)

    def _call_on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        # RuntimeError: the event loop is closed, and no run waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _accepted(self, code: ReasonCode, properties: Properties | None) -> None:
        if self._connected.done():
            return
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        accepted = getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT_MESSAGES)
        self._in_flight = asyncio.Semaphore(min(MAX_IN_FLIGHT_MESSAGES, accepted))
        if code.is_failure:
            refused = Retry(f"{self._label}: it refuses the connection ({code})")
            self._connected.set_exception(refused)
        else:
            self._connected.set_result(None)

    def _acknowledged(self, mid: int, code: ReasonCode) -> None:
        future = self._pending.get(mid)
        if future is not None and not future.done():
            future.set_result(code)

    def _fail_all(self) -> None:
        self._closed = True
        error = Retry(f"{self._label}: the connection broke")
        if not self._connected.done():
            self._connected.set_exception(error)
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error)
        self._lost(self)


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself after a failed handshake; paho would leave it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _properties(message: BrokerMessage) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's own
    properties.ContentType = message.content_type
    properties.PayloadFormatIndicator = 1
    if message.attributes:
        properties.UserProperty = list(message.attributes.items())
    return properties
