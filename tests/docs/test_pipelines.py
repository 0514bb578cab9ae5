"""The page on pipelines says what is so: settings, defaults, the event, the numbers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from receiver.event import Event
from receiver.handlers.brokers import aws, kafka, mqtt, nats, rabbitmq, redis
from receiver.handlers.brokers.cloudevent import CloudEventEncoder, CloudEventSettings
from receiver.handlers.brokers.topic import TEMPLATE_FIELDS
from tests.docs import pages
from tests.docs.test_reference import settings_of

HANDLERS = {
    "nats": nats,
    "rabbitmq": rabbitmq,
    "redis": redis,
    "kafka": kafka,
    "mqtt": mqtt,
    "aws": aws,
}
COMMON = {"mode", "source", "ca", "cert", "key"}
"""Settings that the table of all pipelines explains once."""

BY_ITSELF = {"routing_key": "{type}", "maxlen": "all"}
"""What applies where such a setting is not set."""


def shown(default: Any) -> str:
    return {"": "-", "None": "-", "{}": "-"}.get(text := str(default), text.lower())


@pytest.mark.parametrize("use", HANDLERS)
def test_settings_are_all_there_with_their_defaults(use: str) -> None:
    """Each setting of a handler has its row, and each row is a setting, in the same order."""
    rows = {
        pages.plain(name): pages.plain(default)
        for name, _, default in pages.table(f"of `{use}` | meaning")
    }
    fields = settings_of(HANDLERS[use]).model_fields
    assert set(rows) == set(fields) - COMMON
    for name, default in rows.items():
        required = fields[name].is_required()
        usual = None if required else fields[name].get_default(call_default_factory=True)
        assert default == BY_ITSELF.get(name, shown(usual)), name


def test_settings_of_all_pipelines_are_told_with_their_defaults() -> None:
    """The common table: what every pipeline has, and the certificates of those that have them."""
    rows = {row[0]: row for row in pages.table("of all pipelines | meaning")}
    assert list(rows) == ["`mode`", "`source`", "`ca`, `cert`, `key`"]
    models = {use: settings_of(module).model_fields for use, module in HANDLERS.items()}
    assert all({"mode", "source"} <= set(fields) for fields in models.values())
    modes = {use: fields["mode"].default for use, fields in models.items()}
    assert modes == dict.fromkeys(HANDLERS, "structured") | {"redis": "binary"}
    assert rows["`mode`"][2] == "`structured`; of `redis`, `binary`"
    without = {use for use, fields in models.items() if not {"ca", "cert", "key"} & set(fields)}
    assert set(re.findall(r"`(\w+)`", rows["`ca`, `cert`, `key`"][1])) == without


def test_the_event_is_the_one_that_is_shown() -> None:
    """The CloudEvent of the prediction that is shown above it, attribute by attribute."""
    [attributes] = [json.loads(block.text) for block in pages.blocks("json", "Pipelines")]
    [above] = [json.loads(block.text) for block in pages.blocks("json", "log, http, command")]
    data = above["data"]
    made = Event(
        id=data["id"],
        source=data["source"],
        type=above["type"],
        subject=data["subject"],
        body=json.dumps(data["prediction"]).encode(),
        occurred_at=datetime.fromisoformat(above["timestamp"]).timestamp(),
    )
    found = json.loads(CloudEventEncoder(CloudEventSettings()).message(made).body)
    assert found.pop("data")["prediction"] == data["prediction"]
    assert found == attributes


def test_fields_of_a_template_are_told() -> None:
    """The sentence that lists them names all, and no other."""
    line = pages.the_line("Subjects and topics may use ")
    assert set(re.findall(r"`\{(\w+)\}`", line)) == set(TEMPLATE_FIELDS)


def test_numbers_are_those_of_the_program() -> None:
    """Limits that a reader may rely on."""
    assert f"or {nats.DUPLICATE_WINDOW_S // 60} if Wavehook created the stream" in pages.TEXT
    assert f"{aws.MAX_CALL_BYTES // 1024} KiB for `aws`" in pages.TEXT
    assert aws.MAX_CALL_MESSAGES == 10
    assert "one of up to ten in a call" in pages.TEXT
