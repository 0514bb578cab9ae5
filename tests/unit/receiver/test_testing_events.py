"""The kit's events, contexts and deliveries are what the receiver makes and takes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from receiver.errors import GiveUp, Unverified
from receiver.event import Delivery, Origin
from receiver.sources.base import Source
from receiver.sources.header_hmac import HeaderHmac
from receiver.sources.standard import StandardWebhooks
from receiver.sources.wavespeed import WaveSpeedSource
from receiver.testing import context, deliveries, event

NOW = 1_800_000_000.0
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def test_an_event_as_the_sources_make_it() -> None:
    """A delivery of its body, verified, is the same event."""
    made = event(id="abc", at=NOW)
    delivery = deliveries.wavespeed(made.body, SECRET, at=NOW)
    source = WaveSpeedSource()
    assert source.verify(delivery, [source.key(SECRET)], NOW) == made
    assert (made.id, made.type) == ("wavespeed:abc:completed", "prediction.completed")
    assert (made.model, made.origin) == ("kwaivgi/kling-v2.1-i2v-standard", Origin.WEBHOOK)
    prediction = made.prediction
    assert prediction is not None
    assert prediction.outputs == ("https://cdn.example/video.mp4",)
    assert (prediction.error, prediction.inference_ms) == (None, 41_250)
    assert prediction.created_at is not None
    assert event().received_at > NOW - 100_000_000


def test_what_is_given_is_there() -> None:
    """Outputs, context and any field of a prediction."""
    made = event("failed", context={"user": 7}, id="b", model="m/x", error="flagged", code=1200)
    prediction = made.prediction
    assert prediction is not None
    assert (made.context, made.model, made.type) == ({"user": 7}, "m/x", "prediction.failed")
    assert (prediction.outputs, prediction.error, prediction.code) == ((), "flagged", 1200)
    assert event("failed").prediction.error  # type: ignore[union-attr]
    two = event(outputs=["https://a.example/1", "https://a.example/2"]).prediction
    assert two is not None
    assert (len(two.outputs), two.has_nsfw_contents) == (2, (False, False))


def test_other_bodies_and_sources() -> None:
    """What is no prediction is parked where the source sends nothing else."""
    assert event(body=b"\xff").parked
    assert event(body=b'{"type": "push"}', source="github").type == "push"
    assert event(body=b"{}", source="github").source == "github"
    assert event(body=b"{}", source="github").type == "message"


def test_a_context_as_the_dispatcher_makes_it() -> None:
    """Key, deadline, and earlier handlers that are done or dead."""
    made = event(id="abc", at=NOW)
    given = context(
        made, handler="tell", attempt=3, timeout=60, earlier={"keep": [1], "shop": GiveUp("no")}
    )
    assert (given.key, given.handler) == ("wavespeed:abc:completed/tell", "tell")
    assert given.attempt == 3
    keep, shop = given.earlier["keep"], given.earlier["shop"]
    assert (keep.state, keep.result, keep.error) == ("done", [1], None)
    assert (shop.state, shop.result, shop.error) == ("dead", None, "no")
    assert 50 < given.deadline - context(made, timeout=5).deadline < 60
    assert context(made).earlier == {}


PRIVATE = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
PUBLIC = PRIVATE.public_key().public_bytes(
    serialization.Encoding.Raw, serialization.PublicFormat.Raw
)


def coded(prefix: str, key: bytes) -> str:
    return f"{prefix}_{base64.b64encode(key).decode()}"


DIALECTS: list[tuple[Source[Any], Any, str, str, dict[str, Any]]] = [
    (WaveSpeedSource(), deliveries.wavespeed, SECRET, SECRET, {}),
    (StandardWebhooks("standard"), deliveries.standard, SECRET, SECRET, {}),
    (
        StandardWebhooks("standard"),
        deliveries.standard,
        coded("whsk", b"p" * 32),
        coded("whpk", PUBLIC),
        {},
    ),
    (
        StandardWebhooks("standard"),
        deliveries.standard,
        coded("whsk", b"p" * 32 + PUBLIC),
        coded("whpk", PUBLIC),
        {},
    ),
    (HeaderHmac("header_hmac"), deliveries.header_hmac, "any", "any", {}),
    (
        HeaderHmac("shop", "X-Sign", "", "base64"),
        deliveries.header_hmac,
        "any",
        "any",
        {"source": "shop", "header": "X-Sign", "prefix": "", "encoding": "base64"},
    ),
]


@pytest.mark.parametrize(("source", "sign", "secret", "key", "more"), DIALECTS)
def test_each_dialect_is_verified_by_its_source(
    source: Source[Any], sign: Any, secret: str, key: str, more: dict[str, Any]
) -> None:
    """The right secret is; a changed body and another secret are not."""
    made: Delivery = sign(b'{"id": "a", "status": "completed"}', secret, at=NOW, **more)
    verified = source.verify(made, [source.key(key)], NOW)
    assert (verified.source, verified.subject, verified.received_at) == (source.name, "a", NOW)
    changed = Delivery(made.source, made.headers, made.body + b" ", received_at=NOW)
    with pytest.raises(Unverified):
        source.verify(changed, [source.key(key)], NOW)
    with pytest.raises(Unverified):
        source.verify(made, [source.key(coded("whsec", b"other" * 8))], NOW)


@pytest.mark.parametrize(("source", "sign", "secret", "key", "more"), DIALECTS)
def test_a_delivery_is_of_now_unless_it_is_said(
    source: Source[Any], sign: Any, secret: str, key: str, more: dict[str, Any]
) -> None:
    """So it can be posted to a receiver that runs; a token goes with it."""
    made: Delivery = sign(b"{}", secret, token="t", **more)
    assert source.verify(made, [source.key(key)], made.received_at).body == b"{}"
    assert made.token == "t"
    assert made.received_at > NOW - 100_000_000
