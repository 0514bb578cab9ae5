"""The pipeline handlers keep the contract of all handlers, as a stranger's package would run it.

Each speaks with its real broker where one is here; what it publishes, nobody wants there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from receiver.handlers.brokers import aws, kafka, mqtt, nats, rabbitmq, redis
from receiver.testing import HandlerContract
from tests.support import needed
from tests.support.broker_streams import Kafka
from tests.support.brokers import SECRET

NOBODY = "127.0.0.1:9"


class TestNats(HandlerContract):
    """No stream takes it."""

    factory = staticmethod(nats.create)
    secrets = ("url",)

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        host = needed.nats().rpartition("@")[2].removeprefix("nats://")
        self.settings = {
            "url": f"nats://wavehook:{SECRET}-url@{host}",
            "subject": "wavehook-nobody.{type}.{model}",
            "stream": "NOBODY",
            "mode": "binary",
        }


class TestRabbitMQ(HandlerContract):
    """No queue is bound for it."""

    factory = staticmethod(rabbitmq.create)
    secrets = ("url",)

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        self.settings = {"url": needed.rabbitmq(), "exchange": "amq.topic", "mode": "binary"}


class TestRedis(HandlerContract):
    """Redis is away."""

    factory = staticmethod(redis.create)
    settings: Mapping[str, Any] = {"url": f"redis://:{SECRET}-url@{NOBODY}", "maxlen": 10}
    secrets = ("url",)


class TestMqtt(HandlerContract):
    """Nobody subscribes to it."""

    factory = staticmethod(mqtt.create)
    secrets = ("url",)

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        host = needed.mqtt().rpartition("@")[2].removeprefix("mqtt://")
        self.settings = {"url": f"mqtt://wavehook:{SECRET}-url@{host}", "mode": "binary"}


class TestKafka(HandlerContract):
    """A mock cluster takes it."""

    factory = staticmethod(kafka.create)
    secrets = ("options",)

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        self.cluster = Kafka()
        self.settings = {
            "servers": self.cluster.servers,
            "topic": "wavehook.{type}",
            "options": {"linger.ms": 0, "sasl.password": f"{SECRET}-password"},
        }


class TestAws(HandlerContract):
    """AWS is away."""

    factory = staticmethod(aws.create)
    settings: Mapping[str, Any] = {
        "to": "arn:aws:sns:eu-west-1:123456789012:videos.fifo",
        "endpoint": f"http://{NOBODY}",
        "mode": "binary",
    }

    @pytest.fixture(autouse=True)
    def _known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wavehook")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
