"""The JSON in which an event is handed to another program, the same for all handlers.

    {
      "type": "prediction.completed",
      "timestamp": "2026-08-01T12:00:00Z",   when it happened, by the sender's clock
      "data": {
        "id": "wavespeed:abc:completed",     the same for every delivery of this event
        "source": "wavespeed",
        "origin": "webhook",                 or reconcile, replay
        "received_at": "2026-08-01T12:00:01Z",
        "subject": "abc",                    the task id, or null
        "model": "kwaivgi/…",                or null
        "context": …,                        of the submit, or null
        "prediction": {…}                    as the API sent it; null if the body is not a
      }                                      prediction: then `payload` is the JSON of the body,
    }                                        or `body` its bytes in base64

All attempts of one event get the same JSON.
"""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import quote

from receiver.event import Event
from receiver.strict_json import encoder
from submitter.prediction import JSON, is_prediction
from submitter.timestamps import rfc3339_clamped

MAX_KEY_CHARS = 255
"""Of an idempotency key in a header or an environment variable."""

_visible = re.compile(r"[A-Za-z0-9_.~:/-]*").fullmatch


def envelope(event: Event) -> dict[str, JSON]:
    """The event as JSON; the module's docstring shows it."""
    happened = rfc3339_clamped(happened_at(event))
    return {"type": event.type, "timestamp": happened, "data": event_data(event)}


def event_data(event: Event) -> dict[str, JSON]:
    """The `data` of the envelope alone."""
    data: dict[str, JSON] = {
        "id": event.id,
        "source": event.source,
        "origin": str(event.origin),
        "received_at": rfc3339_clamped(event.received_at),
        "subject": event.subject,
        "model": event.model,
        "context": event.context,
        "prediction": None,
    }
    payload = event.payload
    if is_prediction(payload):
        data["prediction"] = payload
    elif payload is not None:
        data["payload"] = payload
    else:
        data["body"] = base64.b64encode(event.body).decode()
    return data


def encode_envelope(event: Event) -> bytes:
    """The envelope as ASCII JSON on one line."""
    return encode_line(envelope(event))


encode_line = encoder()
"""Encodes JSON in ASCII without line breaks: no value can end a line or a header."""


def happened_at(event: Event) -> float:
    """Unix seconds: when it happened, by the sender's clock; else when it was received."""
    return event.occurred_at or event.received_at


def lookup(context: JSON, path: str | None) -> JSON:
    """The value of a context at a dotted path; None if there is none, all of it for `""`."""
    if path is None:
        return None
    for part in path.split(".") if path else ():
        context = context.get(part) if isinstance(context, dict) else None
    return context


def ascii_key(key: str) -> str:
    """An idempotency key as visible ASCII of limited length; different keys stay different.

    Everything but letters, digits and `_-~:/` is percent-encoded, also the full stop: it separates
    the parts that Standard Webhooks signs.
    """
    return _bounded(visible_ascii(key, MAX_KEY_CHARS).replace(".", "%2E"), key, MAX_KEY_CHARS)


def visible_ascii(text: str, limit: int = MAX_KEY_CHARS) -> str:
    """A text as visible ASCII of limited length, as `ascii_key`, but full stops stay.

    Args:
        text: any text.
        limit: maximum number of characters, at least 71.
    """
    if len(text) <= limit and _visible(text):
        return text
    return _bounded(quote(text, safe=":/", errors="surrogatepass"), text, limit)


def _bounded(text: str, original: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return "sha256:" + hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()
