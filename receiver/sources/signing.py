"""Signatures: pure, on bytes, constant time, bounded work.

Every function takes what arrived and what it should be, and answers; nothing here raises on what
a stranger sent, and nothing stops early at the first byte or the first key that differs (F14).
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

MAX_HEADER = 4096
"""Bytes of a signature header that are looked at; a longer one is refused unread."""

MAX_CANDIDATES = 16
"""Signatures of one header that are tried; more is a sender that wants to keep us busy."""

MAX_MESSAGE_ID = 256


def one_header(delivery: Delivery, name: bytes, limit: int = MAX_HEADER) -> bytes:
    """The value of a header that must be there once.

    Raises:
        Unverified: it is missing, repeated, empty or longer than `limit` bytes.
    """
    values = delivery.values(name)
    if not values:
        raise Unverified("missing_header")
    if len(values) > 1 or not 0 < len(values[0]) <= limit:
        raise Unverified("malformed_header")
    return values[0]


def message_id(delivery: Delivery, name: bytes) -> str:
    """A message id that can be stored, logged and forwarded as it is (F17)."""
    value = one_header(delivery, name, MAX_MESSAGE_ID)
    if not (value.isascii() and (text := value.decode()).isprintable()):
        raise Unverified("malformed_header")
    return text


def signed_content(delivery: Delivery) -> tuple[str, int, bytes]:
    """The message id, the sender's time in Unix seconds, and `{id}.{timestamp}.{body}`.

    The signature is over the bytes as they came, so they are not written anew from the values.

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

    A proxy may join repeated headers with commas, so spaces and commas separate alike: a
    signature is what follows its version.

    Raises:
        Unverified: the header is missing, too long, or holds too many.
    """
    header = b" ".join(delivery.values(name))
    if not header:
        raise Unverified("missing_header")
    if len(header) > MAX_HEADER:
        raise Unverified("malformed_header")
    words = header.replace(b",", b" ").split()
    found = [text for label, text in pairwise(words) if label == version]
    if len(found) > MAX_CANDIDATES:
        raise Unverified("malformed_header")
    return found


def from_hex(texts: Iterable[bytes]) -> list[bytes]:
    """Those that are hexadecimal, as bytes; in either case of letters."""
    decoded = []
    for text in texts:
        try:
            decoded.append(binascii.unhexlify(text))
        except ValueError:
            continue
    return decoded


def from_base64(texts: Iterable[bytes]) -> list[bytes]:
    """Those that are base64, as bytes."""
    decoded = []
    for text in texts:
        try:
            decoded.append(base64.b64decode(text, validate=True))
        except ValueError:
            continue
    return decoded


def hmac_fits(keys: Iterable[bytes], message: bytes, signatures: Sequence[bytes]) -> bool:
    """Whether one of the signatures is the HMAC-SHA256 of the message under one of the keys."""
    fits = False
    for key in keys:
        expected = hmac.digest(key, message, "sha256")
        for signature in signatures:
            fits |= hmac.compare_digest(expected, signature)
    return fits


def ed25519_fits(
    keys: Iterable[Ed25519PublicKey], message: bytes, signatures: Sequence[bytes]
) -> bool:
    """Whether one of the signatures is one of the keys' Ed25519 signature of the message."""
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        for signature in signatures:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
    return False
