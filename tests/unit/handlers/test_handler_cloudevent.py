"""The CloudEvent in which an event goes to a broker."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from cloudevents.core.bindings import http, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import SettingsError
from receiver.event import Event, Origin
from receiver.handlers.brokers.cloudevent import CloudEventEncoder, CloudEventSettings
from receiver.handlers.envelope import envelope
from receiver.handlers.settings import read
from tests.support.events import NOW, event

FORMAT = JSONFormat()
STRUCTURED = CloudEventEncoder(CloudEventSettings())
BINARY = CloudEventEncoder(
    CloudEventSettings(mode="binary", source="https://hooks.example.com/a?b=%20")
)


def test_structured_is_one_object() -> None:
    """What a consumer reads where nothing but the body comes through."""
    message = STRUCTURED.message(event(occurred_at=NOW + 0.25))
    assert message.content_type == "application/cloudevents+json"
    assert message.attributes == {}
    found = json.loads(message.body)
    assert found.pop("data") == envelope(event())["data"]
    assert found == {
        "specversion": "1.0",
        "id": "wavespeed:task-1:completed",
        "source": "urn:wavehook:wavespeed",
        "type": "wavehook.prediction.completed",
        "subject": "task-1",
        "time": "2027-01-15T08:00:00.250Z",
        "datacontenttype": "application/json",
    }


def test_binary_is_the_data_beside_its_attributes() -> None:
    """The body is what `http` and `command` hand out as `data`."""
    message = BINARY.message(event())
    assert message.content_type == "application/json"
    assert json.loads(message.body) == envelope(event())["data"]
    assert message.attributes == {
        "specversion": "1.0",
        "id": "wavespeed:task-1:completed",
        "source": "https://hooks.example.com/a?b=%20",
        "type": "wavehook.prediction.completed",
        "subject": "task-1",
        "time": "2027-01-15T07:59:57.500Z",
    }


def test_an_event_without_a_task_has_no_subject() -> None:
    """An attribute must not be empty; one that is not there is left out."""
    assert "subject" not in json.loads(STRUCTURED.message(replace(event(), subject=None)).body)


texts = st.text(min_size=1, max_size=400)
some_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
events = st.builds(
    Event,
    id=texts,
    source=texts,
    type=st.text(max_size=400),
    subject=st.none() | st.text(max_size=400),
    model=st.none() | st.text(max_size=400),
    context=some_json,
    body=st.binary(max_size=60)
    | some_json.map(lambda value: json.dumps(value).encode())
    | st.text(min_size=1).map(lambda id: json.dumps({"id": id, "status": "failed"}).encode()),
    origin=st.sampled_from(Origin),
    occurred_at=st.floats(allow_nan=False),
    received_at=st.floats(min_value=0, max_value=4e9),
)


@given(events)
def test_any_event_is_a_valid_one(made: Event) -> None:
    """F11, F17: read by the package's own reader it says what the event said, in both modes."""
    structured = STRUCTURED.message(made)
    assert all(0x20 <= byte < 0x7F for byte in structured.body)
    read = FORMAT.read(CloudEvent, structured.body)
    assert read.get_data() == json.loads(json.dumps(envelope(made)["data"]))
    binary = BINARY.message(made)
    for value in binary.attributes.values():
        assert re.fullmatch(r"[!-~]{1,300}", value)
    for found in (_http(binary), _kafka(binary), _rabbitmq(binary)):
        assert found.get_id() == read.get_id()
        assert found.get_type() == read.get_type()
        assert found.get_subject() == read.get_subject()
        assert found.get_time() == read.get_time()
        assert found.get_data() == read.get_data()


def _http(message: Any) -> Any:
    headers = {
        f"ce-{name}": value.replace("%", "%25") for name, value in message.attributes.items()
    }
    sent = http.HTTPMessage({**headers, "content-type": message.content_type}, message.body)
    return http.from_http(sent, FORMAT, CloudEvent)


def _kafka(message: Any) -> Any:
    headers = {f"ce_{name}": value.encode() for name, value in message.attributes.items()}
    headers["content-type"] = message.content_type.encode()
    return kafka.from_kafka(kafka.KafkaMessage(headers, None, message.body), FORMAT, CloudEvent)


def _rabbitmq(message: Any) -> Any:
    headers = {f"ce-{name}": value for name, value in message.attributes.items()}
    sent = rabbitmq.RabbitMQMessage(headers, message.content_type, message.body)
    return rabbitmq.from_rabbitmq(sent, FORMAT, CloudEvent)


@given(events)
def test_a_retry_has_the_same_bytes(made: Event) -> None:
    """F25: a consumer that compares what it got finds nothing new."""
    again = replace(made)
    assert STRUCTURED.message(made) == STRUCTURED.message(again)
    assert BINARY.message(made) == BINARY.message(again)


@given(texts, texts)
def test_two_events_have_two_ids(one: str, other: str) -> None:
    """However strange or long they are."""
    first, second = (
        BINARY.message(replace(event(), id=id)).attributes["id"] for id in (one, other)
    )
    assert (first == second) is (one == other)


@pytest.mark.parametrize("source", ["", "two words", "é", "a\r\nb", "x" * 256])
def test_a_source_has_to_be_a_reference(source: str) -> None:
    """It goes into headers as it is."""
    with pytest.raises(SettingsError, match=r"handlers\.x\.source: .*expected a URI such as"):
        read(CloudEventSettings, "x", {"source": source})
