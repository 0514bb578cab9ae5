"""Development only: believes everything. Off unless a source in the settings names it."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.event import Delivery, Event
from receiver.sources.header_hmac import body_event


class Insecure:
    """A source that verifies nothing; `serve` says so at every start."""

    def __init__(self, name: str) -> None:
        self.name = name

    def key(self, secret: str) -> bytes:  # noqa: ARG002 - none fits
        """See `Source.key`."""
        raise ValueError("expected no secret: this source verifies nothing")

    def verify(self, delivery: Delivery, keys: Sequence[bytes], now: float) -> Event:  # noqa: ARG002 - see above
        """See `Source.verify`."""
        return body_event(delivery)
