"""WaveSpeedAI's signature: similar to Standard Webhooks, but not the same.

`webhook-signature: v3,<64 hex digits>` is the HMAC-SHA256 of
`{webhook-id}.{webhook-timestamp}.{body}`. The key is the text of the secret after `whsec_`, not
decoded.
https://wavespeed.ai/docs/how-to-use-webhooks
"""

from __future__ import annotations

from collections.abc import Sequence

from receiver.errors import Unverified
from receiver.event import Delivery, Event
from receiver.sources import signing
from receiver.sources.base import read_event, timely


class WaveSpeedSource:
    """The source of WaveSpeedAI's webhooks."""

    def __init__(self, name: str = "wavespeed") -> None:
        self.name = name

    def key(self, secret: str) -> bytes:
        text = secret.strip()
        if not text.startswith("whsec_"):
            raise ValueError("expected it to start with whsec_, as the API returns it")
        if not (key := text.removeprefix("whsec_")):
            raise ValueError("expected text after whsec_")
        return key.encode()

    def verify(self, delivery: Delivery, keys: Sequence[bytes], now: float) -> Event:
        message, moment, signed = signing.signed_content(delivery)
        found = signing.from_hex(signing.candidates(delivery, b"webhook-signature", b"v3"))
        if not signing.hmac_fits(keys, signed, found):
            raise Unverified
        return timely(read_event(delivery, message, moment), now)
