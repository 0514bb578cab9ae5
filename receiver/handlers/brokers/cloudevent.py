"""CloudEvents 1.0: the message format of all broker handlers.

    {
      "specversion": "1.0",
      "id": "wavespeed:abc:completed",           the event's id
      "source": "urn:wavehook:wavespeed",        or the handler's setting `source`
      "type": "wavehook.prediction.completed",
      "subject": "abc",                          the task id, if there is one
      "time": "2026-08-01T12:00:00Z",            when it happened, by the sender's clock
      "datacontenttype": "application/json",
      "data": {…}                                `data` of `receiver.handlers.envelope`
    }

Settings of every broker handler:

    mode = "structured"     # the body is this JSON; "binary": the body is `data` alone, and the
                            # attributes are headers of the message ("binary" for redis)
    source = "urn:team:video"   # the CloudEvent's `source`; default urn:wavehook: and the
                                # name of the source that verified the event

A retry sends the same bytes. All attributes are visible ASCII, percent-encoded if an id contains
anything else, so that no id can break out of a header; `data.id` is the unchanged id.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from receiver.event import Event
from receiver.handlers.envelope import encode_line, event_data, happened_at, visible_ascii
from submitter.timestamps import rfc3339_clamped

JSON_TYPE = "application/json"
CLOUDEVENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "wavehook."
"""The beginning of every CloudEvent's `type`."""

# https://www.rfc-editor.org/rfc/rfc3986#appendix-A
_URI_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]{1,255}")


def _uri_reference(text: str) -> str:
    if not _URI_REFERENCE.fullmatch(text):
        raise ValueError("a URI such as https://hooks.example.com or urn:team:video")
    return text


class CloudEventSettings(BaseModel):
    """The settings that all broker handlers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["structured", "binary"] = "structured"
    source: Annotated[str, AfterValidator(_uri_reference)] | None = None


@dataclass(frozen=True, slots=True)
class BrokerMessage:
    """A CloudEvent ready to be sent.

    Attributes:
        body: what a consumer reads.
        content_type: of the body.
        attributes: the CloudEvent's attributes in binary mode, without a prefix; else empty.
    """

    body: bytes = field(repr=False)
    content_type: str
    attributes: dict[str, str] = field(default_factory=dict, repr=False)

    def headers(self, prefix: str) -> dict[str, str]:
        """The content type, and the attributes under their protocol's prefix."""
        headers = {f"{prefix}{name}": value for name, value in self.attributes.items()}
        return {"content-type": self.content_type, **headers}


class CloudEventEncoder:
    """Encodes events as CloudEvents, in the mode of one handler."""

    def __init__(self, settings: CloudEventSettings) -> None:
        self._source = settings.source
        self._binary = settings.mode == "binary"

    def message(self, event: Event) -> BrokerMessage:
        """The event as a message; see the module's docstring."""
        attributes = {
            "specversion": "1.0",
            "id": visible_ascii(event.id),
            "source": self._source or f"urn:wavehook:{visible_ascii(event.source)}",
            "type": TYPE_PREFIX + visible_ascii(event.type),
            "time": rfc3339_clamped(happened_at(event)),
        }
        if event.subject:
            attributes["subject"] = visible_ascii(event.subject)
        if self._binary:
            return BrokerMessage(encode_line(event_data(event)), JSON_TYPE, attributes)
        whole = {**attributes, "datacontenttype": JSON_TYPE, "data": event_data(event)}
        return BrokerMessage(encode_line(whole), CLOUDEVENT_TYPE)
