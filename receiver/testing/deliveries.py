"""Signed deliveries of each kind of source.

Each function has the name of the `use` in `[sources.NAME]`. They share no code with the receiver's
own checks. Their deliveries can be given to a source's `verify`, or posted:

    made = deliveries.wavespeed(event().body, secret)
    httpx.post(url, headers=list(made.headers), content=made.body)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from receiver.event import Delivery


def wavespeed(
    body: bytes,
    secret: str,
    *,
    source: str = "wavespeed",
    message: str = "msg-1",
    at: float | None = None,
    token: str | None = None,
) -> Delivery:
    """Make a delivery of WaveSpeedAI: `v3` and hex, keyed with the text after `whsec_`.

    https://wavespeed.ai/docs/how-to-use-webhooks

    Args:
        body: the raw body.
        secret: `whsec_…`.
        source: the source's name.
        message: the webhook's id.
        at: Unix seconds of signature and arrival; by default now.
        token: the last segment of the path; None without one.
    """
    now = time.time() if at is None else at
    digest = _hmac(secret.removeprefix("whsec_").encode(), _content(message, now, body)).hex()
    return _delivery(source, body, f"v3,{digest}", message=message, at=now, token=token)


def standard(
    body: bytes,
    secret: str,
    *,
    source: str = "standard",
    message: str = "msg-1",
    at: float | None = None,
    token: str | None = None,
) -> Delivery:
    """Make a delivery of Standard Webhooks: `v1` with a shared secret, `v1a` with a private key.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

    Args:
        body: the raw body.
        secret: `whsec_` and base64, or `whsk_` and the base64 of an Ed25519 key of 32 bytes, with
            or without its public half after it.
        source: the source's name.
        message: the webhook's id.
        at: Unix seconds of signature and arrival; by default now.
        token: the last segment of the path; None without one.
    """
    now = time.time() if at is None else at
    kind, _, text = secret.partition("_")
    key, content = base64.b64decode(text, validate=True), _content(message, now, body)
    if kind == "whsk":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        version, signature = "v1a", Ed25519PrivateKey.from_private_bytes(key[:32]).sign(content)
    else:
        version, signature = "v1", _hmac(key, content)
    signed = f"{version},{base64.b64encode(signature).decode()}"
    return _delivery(source, body, signed, message=message, at=now, token=token)


def header_hmac(
    body: bytes,
    secret: str,
    *,
    source: str = "header_hmac",
    header: str = "X-Hub-Signature-256",
    prefix: str = "sha256=",
    encoding: str = "hex",
    at: float | None = None,
    token: str | None = None,
) -> Delivery:
    """Make a delivery with an HMAC of its body in a header, as GitHub and many others send it.

    Args:
        body: the raw body.
        secret: any text.
        source: the source's name.
        header: the header with the signature.
        prefix: text before the signature.
        encoding: `hex` or `base64`.
        at: Unix seconds of the arrival; by default now.
        token: the last segment of the path; None without one.
    """
    digest = _hmac(secret.encode(), body)
    signature = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    headers = (_JSON, (header.lower().encode(), (prefix + signature).encode()))
    return Delivery(source, headers, body, token, time.time() if at is None else at)


_JSON = (b"content-type", b"application/json")


def _content(message: str, at: float, body: bytes) -> bytes:
    return f"{message}.{int(at)}.".encode() + body


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _delivery(
    source: str, body: bytes, signature: str, *, message: str, at: float, token: str | None
) -> Delivery:
    headers = (
        _JSON,
        (b"webhook-id", message.encode()),
        (b"webhook-timestamp", str(int(at)).encode()),
        (b"webhook-signature", signature.encode()),
    )
    return Delivery(source, headers, body, token, at)
