"""What the README says of the pipelines is so: settings, defaults, the event, the numbers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from receiver.event import Event
from receiver.handlers.brokers import aws, kafka, mqtt, nats, rabbitmq, redis
from receiver.handlers.brokers.cloudevent import Envelopes, Shape
from receiver.handlers.brokers.nats_publisher import WINDOW
from receiver.handlers.brokers.topic import _FIELDS
from tests.docs import readme

MODELS: dict[str, type[Shape]] = {
    "nats": nats.Settings,
    "rabbitmq": rabbitmq.Settings,
    "redis": redis.Settings,
    "kafka": kafka.Settings,
    "mqtt": mqtt.Settings,
    "aws": aws.Settings,
}

BY_ITSELF = {"routing_key": "{type}", "maxlen": "all"}
"""What follows where such a setting is not there."""


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def told(use: str) -> dict[str, str]:
    """The settings of one handler by their rows, each with its default."""
    found: dict[str, str] = {}
    for keys, of, _, defaults in readme.table("pipeline setting | of | meaning"):
        if of == "all":
            found |= dict.fromkeys(names(keys), "")
        elif use in names(of):
            usual = [readme.plain(each) for each in defaults.split(", ")]
            every = usual * len(names(keys)) if len(usual) == 1 else usual
            found |= dict(zip(names(keys), every, strict=True))
    return found


def shown(default: Any) -> str:
    return {"": "-", "None": "-", "{}": "-"}.get(text := str(default), text.lower())


@pytest.mark.parametrize("use", MODELS)
def test_settings_are_all_there_with_their_defaults(use: str) -> None:
    """Each setting of a handler has its row, and each row's names are settings."""
    rows, fields = told(use), MODELS[use].model_fields
    assert set(rows) == set(fields)
    for name in set(rows) - set(Shape.model_fields):
        required = fields[name].is_required()
        usual = None if required else fields[name].get_default(call_default_factory=True)
        assert rows[name] == BY_ITSELF.get(name, shown(usual)), name


def test_modes_are_told_with_their_defaults() -> None:
    """All are structured but one."""
    [default] = [
        row[3] for row in readme.table("pipeline setting | of | meaning") if "mode" in row[0]
    ]
    usual = {use: model.model_fields["mode"].default for use, model in MODELS.items()}
    assert default == "`structured`, of `redis` `binary`"
    assert usual == dict.fromkeys(MODELS, "structured") | {"redis": "binary"}


def test_the_event_is_the_one_that_is_shown() -> None:
    """The CloudEvent of the prediction that is shown above it, attribute by attribute."""
    [attributes] = [json.loads(block.text) for block in readme.blocks("json", "Pipelines")]
    [above] = [json.loads(block.text) for block in readme.blocks("json", "In wavehook.toml")]
    data = above["data"]
    made = Event(
        id=data["id"],
        source=data["source"],
        type=above["type"],
        subject=data["subject"],
        body=json.dumps(data["prediction"]).encode(),
        occurred_at=datetime.fromisoformat(above["timestamp"]).timestamp(),
    )
    found = json.loads(Envelopes(Shape()).message(made).body)
    assert found.pop("data")["prediction"] == data["prediction"]
    assert found == attributes


def test_fields_of_a_template_are_told() -> None:
    """The sentence that lists them names all, and no other."""
    [line] = [line for line in readme.TEXT.splitlines() if line.startswith("Where to, of ")]
    assert set(re.findall(r"`\{(\w+)\}`", line)) == set(_FIELDS)


def test_numbers_are_those_of_the_program() -> None:
    """What a reader may rely on."""
    rows = {readme.plain(row[0]): " ".join(row) for row in readme.table("handler | done means")}
    assert set(rows) == set(MODELS)
    assert f"or {WINDOW // 60} if we made the stream" in rows["nats"]
    assert f"{aws.LIMIT // 1024} KiB for `aws`" in readme.TEXT
    assert aws.MOST == 10
    assert "of up to ten in a call" in rows["aws"]
