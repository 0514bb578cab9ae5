"""An event as it is handed to another program: one JSON shape for all handlers that do so.

    {
      "type": "prediction.completed",
      "timestamp": "2026-08-01T12:00:00Z",   when it happened, by the sender's clock
      "data": {
        "id": "wavespeed:abc:completed",     the same for every delivery of this fact
        "source": "wavespeed",
        "origin": "webhook",                 or reconcile, replay
        "received_at": "2026-08-01T12:00:01Z",
        "subject": "abc",                    the task id, or null
        "model": "kwaivgi/…",                or null
        "context": …,                        what the submitter sealed in, or null
        "prediction": {…}                    as the API sent it, or null where it is none; then
      }                                      `payload` holds the JSON that came, and `body`
    }                                        (base64) what came where that was no JSON

It is the same over retries of one event.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from urllib.parse import quote

from receiver.event import Event
from receiver.strict_json import encoder
from submitter.prediction import JSON, is_prediction

MAX_KEY = 255
"""Characters of a key in a header or an environment variable."""

_visible = re.compile(r"[A-Za-z0-9_.~:/-]*").fullmatch
_YEAR_10000 = 253_402_300_799.0


def envelope(event: Event) -> dict[str, JSON]:
    """The event as JSON; the module's docstring shows it."""
    happened = moment(happened_at(event))
    return {"type": event.type, "timestamp": happened, "data": contents(event)}


def contents(event: Event) -> dict[str, JSON]:
    """The `data` of the envelope alone."""
    data: dict[str, JSON] = {
        "id": event.id,
        "source": event.source,
        "origin": str(event.origin),
        "received_at": moment(event.received_at),
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


def encode(event: Event) -> bytes:
    """The envelope as ASCII JSON on one line."""
    return line(envelope(event))


line = encoder()
"""JSON in ASCII, without line breaks: nothing in it can end a line or a header (F17)."""


def happened_at(event: Event) -> float:
    """Unix seconds of the event: by the sender's clock, or by ours where it told none."""
    return event.occurred_at or event.received_at


def instant(seconds: float) -> datetime:
    """A moment in UTC; the nearest one that can be written, where a clock is impossible (F6)."""
    if not 0.0 <= seconds <= _YEAR_10000:
        seconds = min(max(0.0, seconds), _YEAR_10000)
    return datetime.fromtimestamp(seconds, UTC)


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond where there are any."""
    when = instant(seconds)
    spec = "milliseconds" if when.microsecond else "seconds"
    return when.isoformat(timespec=spec)[: -len("+00:00")] + "Z"


def plain(key: str) -> str:
    """A key as bounded, visible ASCII, different for different keys (F17).

    What is no letter, digit or one of `_-~:/` is percent-encoded, also the full stop, which
    divides the parts that Standard Webhooks signs.
    """
    return _bounded(visible(key, MAX_KEY).replace(".", "%2E"), key, MAX_KEY)


def visible(text: str, limit: int = MAX_KEY) -> str:
    """As `plain`, but full stops stay.

    Args:
        text: any.
        limit: characters of what comes back; 71 at least.
    """
    if len(text) <= limit and _visible(text):
        return text
    return _bounded(quote(text, safe=":/", errors="surrogatepass"), text, limit)


def _bounded(text: str, original: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return "sha256:" + hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()
