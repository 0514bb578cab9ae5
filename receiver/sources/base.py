"""The port of a source: how one sender signs, and what its bodies mean.

A source is pure: it has no clock, socket or environment. `verify` returns an Event or raises a
Rejected for any delivery, with work bounded by its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from receiver.errors import Stale
from receiver.event import PARKED, Delivery, Event, Origin
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON, TERMINAL, Prediction

WAVESPEED = "wavespeed"
"""Name of WaveSpeedAI's source: it needs no section, and fetched results belong to it too."""

MAX_ID_LENGTH = 256
"""Characters of the longest id in a body or header."""

TIME_WINDOW_S = 300
"""Seconds on both sides of the sender's time (Standard Webhooks: "tolerance")."""

Key = TypeVar("Key")


class Source(Protocol, Generic[Key]):
    """A sender's signature scheme and body format."""

    name: str

    def key(self, secret: str) -> Key:
        """Parse a configured secret into a key for `verify`.

        Raises:
            ValueError: not a secret of this source; the text gives the reason, not the secret.
        """
        ...

    def verify(self, delivery: Delivery, keys: Sequence[Key], now: float) -> Event:
        """Turn an untrusted delivery into a verified event.

        Args:
            delivery: as received.
            keys: all of them are tried.
            now: Unix seconds.

        Raises:
            Unverified: a header is missing or malformed, or no signature matches.
            Stale: validly signed, but outside the time window.
        """
        ...


def event_id(
    source: str, subject: str | None, status: str | None, message: str, body: bytes
) -> str:
    """The deduplication key.

    A webhook, its retries, a reconcile and a replay of one result all carry the same subject and
    terminal status. For all else the message's id stands, with a digest of the body beside it: in
    the vendor's own sample the webhook id equals the task id, so that two different messages
    about one task may share it, and neither may be lost.
    """
    if subject is not None and status in TERMINAL:
        return f"{source}:{subject}:{status}"
    return f"{source}:{message}:{hashlib.sha256(body).hexdigest()[:16]}"


def read_event(
    delivery: Delivery, message: str, occurred_at: float, default_type: str = PARKED
) -> Event:
    """Build the event of a delivery whose signature is valid.

    Args:
        delivery: the verified delivery.
        message: the sender's id of the message, printable.
        occurred_at: Unix seconds, the sender's time.
        default_type: type of a JSON object that is not a prediction and has no `type` of its own;
            `parked` for a source that sends predictions only.
    """
    subject = status = model = None
    type = PARKED
    try:
        data = parse(delivery.body)
    except Unreadable:
        data = None
    if isinstance(data, dict):
        subject, status = _name(data.get("id")), _name(data.get("status"))
        model = _name(data.get("model"))
        if subject and status:
            type = f"prediction.{status}"
        elif default_type != PARKED:
            type = _name(data.get("type")) or default_type
    return Event(
        id=event_id(delivery.source, subject, status, message, delivery.body),
        source=delivery.source,
        type=type,
        subject=subject,
        model=model,
        body=delivery.body,
        webhook_id=message,
        occurred_at=occurred_at,
        received_at=delivery.received_at,
    )


def terminal_ids(subject: str, source: str = WAVESPEED) -> list[str]:
    """The ids of all events by which a task can have ended."""
    return [f"{source}:{subject}:{status}" for status in sorted(TERMINAL)]


def fetched_event(
    prediction: Prediction, *, context: JSON, now: float, source: str = WAVESPEED
) -> Event:
    """Build the event of a result that was fetched from the API.

    Its id is the one of the webhook about the same result, so that both are one event.

    Args:
        prediction: terminal, from the API.
        context: the context of its submission.
        now: Unix seconds.
        source: the source whose webhook it replaces.
    """
    text = json.dumps(prediction.raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate would make the body unreadable, and park the result.
    body = text.encode(errors="replace")
    delivery = Delivery(source, (), body, received_at=now)
    message = f"fetched-{hashlib.sha256(body).hexdigest()[:16]}"
    event = read_event(delivery, message, now)
    return replace(event, context=context, origin=Origin.RECONCILE, webhook_id=None)


def timely(event: Event, now: float) -> Event:
    """Return the event if the sender's time is at most `TIME_WINDOW_S` from `now`.

    Raises:
        Stale: it is outside the window.
    """
    skew = now - event.occurred_at
    if abs(skew) > TIME_WINDOW_S:
        raise Stale(skew, event.subject)
    return event


def _name(value: JSON) -> str | None:
    """A printable text of bounded length, safe to show, log and store; else None."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable():
        return value
    return None
