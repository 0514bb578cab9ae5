"""`mqtt`: publishes the event to an MQTT broker with QoS 1, and waits for the acknowledgement.

    [handlers.events]
    use = "mqtt"
    url = "mqtt://user:password@mqtt.example:1883"  # mqtts:// for TLS; required
    topic = "wavehook/{type}"               # a template, see `topic`; this is the default; dots of
                                            # a type separate levels, as slashes do
    retain = false                          # true: the broker keeps each topic's last event
    mandatory = true                        # false: an event without a subscriber is done, and lost
    version = "5"                           # MQTT's version, or "3.1.1"
    ca, cert, key                           # files for TLS, see `connection`
    mode, source                            # of the CloudEvent, see `cloudevent`

In binary mode the attributes are user properties, which MQTT 3.1.1 does not have.

Done: the broker has acknowledged the event. It passes the event to present subscribers, and to
absent ones whose session it keeps. Nobody else gets it later, unless it is retained. There is no
result.

Retried: the broker reports that there is no subscriber (MQTT 5 only, and neither `retain` nor
`mandatory = false` is set), it refuses the topic, the connection fails, or there is no
acknowledgement before the handler's `timeout`. Not retried: the event is larger than the broker
accepts.

Duplicates: MQTT does not detect them. After a lost acknowledgement a subscriber may get the event
twice, with the same `id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.cloudevent import CloudEventEncoder, CloudEventSettings
from receiver.handlers.brokers.connection import (
    SharedConnection,
    TlsSettings,
    UrlRules,
    closed_on_failure,
    tls_context,
)
from receiver.handlers.brokers.topic import TopicRules, TopicTemplate
from receiver.handlers.settings import read

if TYPE_CHECKING:
    import ssl

    from receiver.handlers.brokers.mqtt_session import MqttSession

NO_MATCHING_SUBSCRIBERS = 0x10
"""https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901124"""

URL_RULES = UrlRules(
    broker="MQTT",
    ports={"mqtt": 1883, "mqtts": 8883},
    expected="mqtt://host:1883 or mqtts://host:8883",
)
TOPIC_RULES = TopicRules(
    separator="/",
    pattern=re.compile(r"(?!\$)[!-\"$-*,-~]+"),
    max_chars=1024,
    expected="a topic such as wavehook/{type}, without spaces and wildcards",
)


class MqttSettings(CloudEventSettings, TlsSettings):
    """The settings of the handler."""

    url: Annotated[str, AfterValidator(URL_RULES.check)] = Field(
        repr=False, description="the broker's URL, such as mqtt://127.0.0.1:1883"
    )
    topic: Annotated[str, AfterValidator(TOPIC_RULES.check)] = "wavehook/{type}"
    retain: bool = False
    mandatory: bool = True
    version: Literal["5", "3.1.1"] = "5"

    @model_validator(mode="after")
    def _consistent(self) -> MqttSettings:
        if self.mode == "binary" and self.version != "5":
            raise ValueError('`version = "5"` beside `mode = "binary"`, for its user properties')
        if (self.ca or self.cert) and not self.url.startswith("mqtts:"):
            raise ValueError("a `url` with mqtts:// beside `ca` or `cert`")
        return self


class MqttHandler:
    """Publishes events with QoS 1."""

    def __init__(self, settings: MqttSettings, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._label = URL_RULES.label(settings.url)
        self._topic = TopicTemplate(settings.topic, TOPIC_RULES)
        self._encoder = CloudEventEncoder(settings)
        self._connection: SharedConnection[MqttSession] = SharedConnection(
            self._label, self._connect, lambda session: session.close()
        )

    async def __call__(self, event: Event, context: Context) -> None:
        settings = self._settings
        topic, message = self._topic.fill(event), self._encoder.message(event)
        code = await self._connection.use(
            context.deadline,
            lambda session: session.publish(topic, message, retain=settings.retain),
        )
        if code.is_failure:
            raise Retry(f"{self._label}: it refuses {topic} ({code})")
        if code.value == NO_MATCHING_SUBSCRIBERS and settings.mandatory and not settings.retain:
            raise Retry(
                f"{self._label}: nobody subscribes to {topic}, and the event would be lost; "
                "`retain = true` keeps it there, `mandatory = false` lets it go"
            )

    async def check(self) -> str:
        """Connect; publishes nothing."""
        await self._connection.get()
        return f"{self._label}: connected; the first event shows whether publishing is permitted"

    async def close(self) -> None:
        await self._connection.close()

    async def _connect(self) -> MqttSession:
        from receiver.handlers.brokers.mqtt_session import MqttSession

        settings = self._settings
        session = MqttSession(self._label, v5=settings.version == "5", lost=self._connection.drop)
        async with closed_on_failure(session.close):
            await session.open(settings.url, self._tls)
        return session


def create(name: str, settings: Mapping[str, Any]) -> MqttHandler:
    """Make the handler."""
    import paho.mqtt.client  # noqa: F401 - a missing extra shows at start

    chosen = read(MqttSettings, name, settings)
    return MqttHandler(chosen, tls_context(name, chosen))
