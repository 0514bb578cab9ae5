"""An event as a CloudEvent 1.0: what every pipeline handler sends.

    {
      "specversion": "1.0",
      "id": "wavespeed:abc:completed",           the event's id
      "source": "urn:wavehook:wavespeed",        or as the handler's `source` says
      "type": "wavehook.prediction.completed",
      "subject": "abc",                          the task id, where there is one
      "time": "2026-08-01T12:00:00Z",            when it happened, by the sender's clock
      "datacontenttype": "application/json",
      "data": {…}                                `data` of `receiver.handlers.envelope`
    }

In structured mode it goes out as this JSON. In binary mode the body is `data` alone, and the rest
stands in the message's headers. It is the same over retries, byte by byte. All attributes are
visible ASCII, percent-encoded where an id holds anything else (F17); `data.id` is the id as it is.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from receiver.event import Event
from receiver.handlers.brokers.topic import EXAMPLE
from receiver.handlers.envelope import contents, happened_at, line, moment, visible

JSON_TYPE = "application/json"
CLOUDEVENT_TYPE = "application/cloudevents+json"
PREFIX = "wavehook."
"""What the type of every event begins with."""

# https://www.rfc-editor.org/rfc/rfc3986#appendix-A
_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]{1,255}")


def _reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError("a URI such as https://hooks.example.com or urn:team:video")
    return text


class Shape(BaseModel):
    """The settings that all pipeline handlers have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["structured", "binary"] = "structured"
    source: Annotated[str, AfterValidator(_reference)] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it goes to a broker.

    Attributes:
        body: what a consumer reads.
        content_type: of the body.
        attributes: the CloudEvent's own, for headers, in binary mode; else none.
    """

    body: bytes = field(repr=False)
    content_type: str
    attributes: dict[str, str] = field(default_factory=dict, repr=False)


class Envelopes:
    """Makes messages of events.

    The package cloudevents reads one of them at the start, as a consumer will, and no other: what
    all of them are made of cannot be illegal.

    Raises:
        ImportError: the package is missing.
    """

    def __init__(self, shape: Shape) -> None:
        from cloudevents.core.formats.json import JSONFormat
        from cloudevents.core.v1.event import CloudEvent

        self._source = shape.source
        self._binary = False
        JSONFormat().read(CloudEvent, self.message(EXAMPLE).body)
        self._binary = shape.mode == "binary"

    def message(self, event: Event) -> Message:
        """The event in this handler's mode; see the module's docstring."""
        attributes = {
            "specversion": "1.0",
            "id": visible(event.id),
            "source": self._source or f"urn:wavehook:{visible(event.source)}",
            "type": PREFIX + visible(event.type),
            "time": moment(happened_at(event)),
        }
        if event.subject:
            attributes["subject"] = visible(event.subject)
        if self._binary:
            return Message(line(contents(event)), JSON_TYPE, attributes)
        whole = {**attributes, "datacontenttype": JSON_TYPE, "data": contents(event)}
        return Message(line(whole), CLOUDEVENT_TYPE)
