"""Standard Webhooks: HMAC-SHA256 (v1) and Ed25519 (v1a).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from receiver.errors import Unverified
from receiver.event import Delivery, Event
from receiver.sources import signing
from receiver.sources.base import read_event, timely

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class StandardWebhooks:
    """A source that signs as Standard Webhooks specifies."""

    def __init__(self, name: str) -> None:
        self.name = name

    def key(self, secret: str) -> bytes | Ed25519PublicKey:
        """Parse `whsec_<base64>` for v1, or `whpk_<base64>` for v1a."""
        kind, _, text = secret.strip().partition("_")
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raise ValueError("expected base64 after whsec_ or whpk_") from None
        if kind == "whsec" and raw:
            return raw
        if kind == "whpk" and len(raw) == 32:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            return Ed25519PublicKey.from_public_bytes(raw)
        raise ValueError("expected whsec_<base64>, or whpk_<base64 of 32 bytes>")

    def verify(
        self, delivery: Delivery, keys: Sequence[bytes | Ed25519PublicKey], now: float
    ) -> Event:
        message, moment, signed = signing.signed_content(delivery)
        shared = [key for key in keys if isinstance(key, bytes)]
        public = [key for key in keys if not isinstance(key, bytes)]
        # A sender in transition signs both ways; a version without a configured key is skipped.
        if not (
            (shared and signing.hmac_fits(shared, signed, _signatures(delivery, b"v1")))
            or (public and signing.ed25519_fits(public, signed, _signatures(delivery, b"v1a")))
        ):
            raise Unverified
        return timely(read_event(delivery, message, moment, default_type="message"), now)


def _signatures(delivery: Delivery, version: bytes) -> list[bytes]:
    return signing.from_base64(signing.candidates(delivery, b"webhook-signature", version))
