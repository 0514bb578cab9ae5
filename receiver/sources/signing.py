"""Signature checks: pure functions on bytes, in constant time and with bounded work.

Malformed input raises `Unverified` and nothing else. A comparison does not stop at the first byte
or key that differs, so that its duration tells a stranger nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from receiver.errors import Unverified

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from receiver.event import Delivery

MAX_HEADER_BYTES = 4096
"""Longest signature header; a longer one is refused."""

MAX_SIGNATURES = 16
"""Most signatures in one header; every one costs a comparison."""

MAX_MESSAGE_ID_BYTES = 256
"""Longest message id."""


def one_header(delivery: Delivery, name: bytes, limit: int = MAX_HEADER_BYTES) -> bytes:
    """The value of a header that must occur exactly once.

    Raises:
        Unverified: it is missing, repeated, empty or longer than `limit` bytes.
    """
    values = _values(delivery, name)
    if not values:
        raise Unverified("missing_header")
    if len(values) > 1 or not 0 < len(values[0]) <= limit:
        raise Unverified("malformed_header")
    return values[0]


def message_id(delivery: Delivery, name: bytes) -> str:
    """A message id in printable ASCII, safe to store, log and forward."""
    value = one_header(delivery, name, MAX_MESSAGE_ID_BYTES)
    if not (value.isascii() and (text := value.decode()).isprintable()):
        raise Unverified("malformed_header")
    return text


def signed_content(delivery: Delivery) -> tuple[str, int, bytes]:
    """The message id, the sender's time in Unix seconds, and `{id}.{timestamp}.{body}`.

    The signed content is built from the received bytes, not from the parsed values.

    Raises:
        Unverified: `webhook-id` or `webhook-timestamp` is missing or malformed.
    """
    message = message_id(delivery, b"webhook-id")
    moment = one_header(delivery, b"webhook-timestamp", 12)
    if not moment.isdigit():
        raise Unverified("malformed_header")
    return message, int(moment), b"%b.%b.%b" % (message.encode(), moment, delivery.body)


def candidates(delivery: Delivery, name: bytes, version: bytes) -> list[bytes]:
    """The signatures of one version in a header such as `v3,<text> v3,<text>`.

    Spaces and commas separate alike, because a proxy may join repeated headers with commas; a
    signature is the word after its version.

    Raises:
        Unverified: the header is missing, too long, or holds too many.
    """
    header = b" ".join(_values(delivery, name))
    if not header:
        raise Unverified("missing_header")
    if len(header) > MAX_HEADER_BYTES:
        raise Unverified("malformed_header")
    words = header.replace(b",", b" ").split()
    found = [text for label, text in pairwise(words) if label == version]
    if len(found) > MAX_SIGNATURES:
        raise Unverified("malformed_header")
    return found


def from_hex(texts: Iterable[bytes]) -> list[bytes]:
    """Decode hexadecimal texts, in either case of letters; others are left out."""
    decoded = []
    for text in texts:
        try:
            decoded.append(binascii.unhexlify(text))
        except ValueError:
            continue
    return decoded


def from_base64(texts: Iterable[bytes]) -> list[bytes]:
    """Decode base64 texts; others are left out."""
    decoded = []
    for text in texts:
        try:
            decoded.append(base64.b64decode(text, validate=True))
        except ValueError:
            continue
    return decoded


def hmac_fits(keys: Iterable[bytes], message: bytes, signatures: Sequence[bytes]) -> bool:
    """True if a signature is the HMAC-SHA256 of the message under one of the keys."""
    fits = False
    for key in keys:
        expected = hmac.digest(key, message, "sha256")
        for signature in signatures:
            fits |= hmac.compare_digest(expected, signature)
    return fits


def ed25519_fits(
    keys: Iterable[Ed25519PublicKey], message: bytes, signatures: Sequence[bytes]
) -> bool:
    """True if a signature is the Ed25519 signature of the message by one of the keys."""
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        for signature in signatures:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
    return False


def _values(delivery: Delivery, name: bytes) -> list[bytes]:
    return [value for key, value in delivery.headers if key == name]
