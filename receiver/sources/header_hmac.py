"""HMAC-SHA256 of the body in one header, as GitHub and many others sign.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from receiver.errors import Unverified
from receiver.event import Delivery, Event
from receiver.sources import signing
from receiver.sources.base import read_event


class HeaderHmac:
    """A source that signs the body alone.

    Neither a timestamp nor a message id is signed, so a captured delivery can be replayed at any
    time. The message id is the digest of the body: the same body is the same event.

    Args:
        name: the source's name.
        header: the header with the signature.
        prefix: text before the signature, such as `sha256=`.
        encoding: `hex` or `base64`.
    """

    def __init__(
        self,
        name: str,
        header: str = "x-hub-signature-256",
        prefix: str = "sha256=",
        encoding: str = "hex",
    ) -> None:
        self.name = name
        self._header = header.lower().encode()
        self._prefix = prefix.encode()
        self._decode = signing.from_hex if encoding == "hex" else signing.from_base64

    def key(self, secret: str) -> bytes:
        if not secret:
            raise ValueError("expected some text")
        return secret.encode()

    def verify(self, delivery: Delivery, keys: Sequence[bytes], now: float) -> Event:  # noqa: ARG002 - no timestamp is signed
        value = signing.one_header(delivery, self._header)
        if not value.startswith(self._prefix):
            raise Unverified("malformed_header")
        found = self._decode([value.removeprefix(self._prefix)])
        if not signing.hmac_fits(keys, delivery.body, found):
            raise Unverified
        return body_event(delivery)


def body_event(delivery: Delivery) -> Event:
    """An event whose message id is the digest of its body."""
    digest = hashlib.sha256(delivery.body).hexdigest()
    return read_event(delivery, digest, delivery.received_at, default_type="message")
