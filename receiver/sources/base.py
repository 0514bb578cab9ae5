"""The port of a source: a sender's dialect, pure, on bytes.

A source has no clock, socket or environment. Whatever a delivery holds, `verify` returns an Event
or raises a Rejected, and does an amount of work that the size of the delivery bounds.
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
"""WaveSpeedAI's own source: it needs no section, and what its API is asked for is its event too."""

MAX_ID = 256
"""The longest id, in characters, that is taken from a body or a header."""

WINDOW = 300
"""Seconds on both sides of the sender's time (Standard Webhooks: "tolerance")."""

Key = TypeVar("Key")


class Source(Protocol, Generic[Key]):
    """How one sender signs, and what its body means."""

    name: str

    def key(self, secret: str) -> Key:
        """Turn a configured secret into what `verify` wants.

        Raises:
            ValueError: it cannot be a secret of this source; the text says why, not the secret.
        """
        ...

    def verify(self, delivery: Delivery, keys: Sequence[Key], now: float) -> Event:
        """Turn an untrusted delivery into a verified event.

        Args:
            delivery: as it arrived.
            keys: all are tried.
            now: Unix seconds.

        Raises:
            Unverified: a header is missing or malformed, or no signature fits.
            Stale: well signed, outside the time window.
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
    """Build the event of a delivery whose signature was found right.

    Args:
        delivery: the verified delivery.
        message: the sender's id of the message, printable.
        occurred_at: Unix seconds, the sender's time.
        default_type: the type of a readable JSON object that is no prediction; `parked` where
            the source sends nothing but predictions. A text `type` in the body goes first then.
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
    """The ids of all events that can say that a task has ended."""
    return [f"{source}:{subject}:{status}" for status in sorted(TERMINAL)]


def fetched_event(
    prediction: Prediction, *, context: JSON, now: float, source: str = WAVESPEED
) -> Event:
    """Build the event of a result that was asked for.

    Its id is that of the webhook about the same result, so that both are one event (F30).

    Args:
        prediction: terminal, as the API gave it.
        context: of its submission.
        now: Unix seconds.
        source: whose webhook it stands for.
    """
    text = json.dumps(prediction.raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate would make it a body that nobody can read, and park the result.
    body = text.encode(errors="replace")
    asked = Delivery(source, (), body, received_at=now)
    message = f"fetched-{hashlib.sha256(body).hexdigest()[:16]}"
    event = read_event(asked, message, now)
    return replace(event, context=context, origin=Origin.RECONCILE, webhook_id=None)


def timely(event: Event, now: float) -> Event:
    """The event, where the sender's time is inside the window on both sides of `now`.

    Raises:
        Stale: it is outside.
    """
    skew = now - event.occurred_at
    if abs(skew) > WINDOW:
        raise Stale(skew, event.subject)
    return event


def _name(value: JSON) -> str | None:
    """Text that can be shown, logged and stored as it is (F17); lone surrogates cannot."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable():
        return value
    return None
