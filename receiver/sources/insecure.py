"""A source without verification, for development; off unless the settings name it."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.event import Delivery, Event
from receiver.sources.header_hmac import body_event


class Insecure:
    """A source that verifies nothing; every start logs a warning."""

    def __init__(self, name: str) -> None:
        self.name = name

    def key(self, secret: str) -> bytes:  # noqa: ARG002 - there is no key
        raise ValueError("expected no secret: this source verifies nothing")

    def verify(self, delivery: Delivery, keys: Sequence[bytes], now: float) -> Event:  # noqa: ARG002 - nothing is verified
        return body_event(delivery)
