"""`mqtt`: publishes the event with QoS 1, and waits until the broker has acknowledged it.

    [handlers.events]
    use = "mqtt"
    url = "mqtt://user:password@mqtt.example:1883"      # mqtts:// for TLS
    topic = "wavehook/{type}"               # see `topic`; dots of a type divide
    retain = false                          # the broker keeps the last one of each topic
    mandatory = true                        # one that nobody subscribes to is not done
    version = "5"                           # or "3.1.1"

The body is a CloudEvent; see `cloudevent`. In binary mode its attributes are
user properties, which MQTT 3.1.1 does not have.

Done means that the broker has it. A broker gives it to who subscribes then, and to sessions that
it keeps; nobody else gets it later, unless it is retained. So where a broker says that nobody
subscribes (MQTT 5), it is tried again; `mandatory = false` lets it go. A broker does not know an
event again: where an answer was lost it comes twice, with one `id`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import Envelopes, Message, Shape
from receiver.handlers.brokers.connection import Certificates, Link, end, within
from receiver.handlers.brokers.connection import context as tls_context
from receiver.handlers.brokers.topic import Form, Topic
from receiver.handlers.settings import read

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.reasoncodes import ReasonCode

    from receiver.handlers.brokers.mqtt_session import Session

NOBODY = 0x10
"""No matching subscribers
(https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901124)."""

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
        publishing = self._publish(topic, message)
        code = await within(context.deadline - self._clock(), self._where, publishing)
        given = self._settings
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

    async def _publish(self, topic: str, message: Message) -> ReasonCode:
        session = await self._link.get()
        return await session.publish(topic, message, retain=self._settings.retain)

    async def _connect(self) -> Session:
        from receiver.handlers.brokers.mqtt_session import Session

        given = self._settings
        session = Session(self._where, v5=given.version == "5", lost=self._link.drop)
        try:
            await session.open(given.url, self._tls)
        except BaseException:
            await end(session.close())
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
    await session.close()
