"""Every source: what it believes, and that nothing makes it do anything else than say no."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Stale, Unverified
from receiver.event import Delivery, Event
from receiver.sources.header_hmac import HeaderHmac
from receiver.sources.insecure import Insecure
from receiver.sources.signing import hmac_fits
from receiver.sources.standard import StandardWebhooks
from receiver.sources.wavespeed import WaveSpeedSource
from tests.support.paths import VALID_SIGNATURES

NOW = 1_772_356_400.0
SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="
KEY = SECRET.removeprefix("whsec_").encode()
BODY = b'{"id":"t1","status":"completed","model":"kwaivgi/kling-v2.1-i2v-standard"}'


def delivery(body: bytes = BODY, source: str = "wavespeed", **headers: bytes) -> Delivery:
    raw = tuple((name.replace("_", "-").encode(), value) for name, value in headers.items())
    return Delivery(source, raw, body, None, NOW)


def v3(body: bytes = BODY, key: bytes = KEY, id: bytes = b"m1", at: bytes = b"1772356400") -> bytes:
    return b"v3," + hmac.new(key, id + b"." + at + b"." + body, hashlib.sha256).hexdigest().encode()


def signed(body: bytes = BODY, *, id: bytes = b"m1", at: bytes = b"1772356400") -> Delivery:
    return delivery(
        body, webhook_id=id, webhook_timestamp=at, webhook_signature=v3(body, id=id, at=at)
    )


def verify(given: Delivery, *secrets: str) -> Event:
    source = WaveSpeedSource()
    return source.verify(given, [source.key(secret) for secret in secrets or (SECRET,)], NOW)


@pytest.mark.parametrize("vector", VALID_SIGNATURES, ids=lambda vector: str(vector["name"]))
def test_every_valid_vector_verifies(vector: dict[str, str]) -> None:
    """A signature that OpenSSL made after the documented recipe is believed."""
    source = WaveSpeedSource()
    given = delivery(
        base64.b64decode(vector["body_base64"]),
        webhook_id=vector["webhook_id"].encode(),
        webhook_timestamp=vector["timestamp"].encode(),
        webhook_signature=vector["signature"].encode(),
    )
    event = source.verify(given, [source.key(vector["secret"])], float(vector["timestamp"]))
    assert event.webhook_id == vector["webhook_id"]


def test_an_event_says_what_the_signed_body_says() -> None:
    """F18: type, model and subject come from the signed body, the id from source and subject."""
    event = verify(signed())
    assert (event.id, event.type, event.subject, event.model) == (
        "wavespeed:t1:completed",
        "prediction.completed",
        "t1",
        "kwaivgi/kling-v2.1-i2v-standard",
    )
    assert event.prediction is not None
    assert event.prediction.status == "completed"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="empty"),
        pytest.param(v3()[3:], id="no version"),
        pytest.param(b"v1" + v3()[2:], id="other version"),
        pytest.param(b"V3" + v3()[2:], id="version in upper case"),
        pytest.param(b"v3", id="version alone"),
        pytest.param(v3()[:-1], id="odd length"),
        pytest.param(v3()[:-2], id="too short"),
        pytest.param(v3() + b"00", id="too long"),
        pytest.param(b"v3," + b"\xff" * 64, id="not ascii"),
        pytest.param(b"v3," + "\u0663".encode() * 32, id="digits of another script"),
        pytest.param(b"v3," + b"0" * 1_000_000, id="a megabyte"),
        pytest.param(b" ".join([b"v3," + b"0" * 64] * 17), id="too many"),
        pytest.param(v3(key=b"other"), id="another key"),
        pytest.param(v3(body=b"{}"), id="another body"),
        pytest.param(v3(id=b"m2"), id="another id"),
        pytest.param(v3(at=b"1772356401"), id="another time"),
    ],
)
def test_a_bad_signature_header_is_refused(header: bytes) -> None:
    """F13: no malformed or wrong signature header gets through, or raises anything else."""
    with pytest.raises(Unverified):
        verify(
            delivery(webhook_id=b"m1", webhook_timestamp=b"1772356400", webhook_signature=header)
        )


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(v3(), id="plain"),
        pytest.param(v3()[:3] + v3()[3:].upper(), id="hex in upper case"),
        pytest.param(b"v1,abc " + v3(), id="after another version"),
        pytest.param(v3(key=b"other") + b" " + v3(), id="after a wrong one"),
        pytest.param(v3(key=b"other") + b", " + v3(), id="joined by a proxy"),
        pytest.param(v3(key=b"other") + b"," + v3() + b",", id="commas only"),
    ],
)
def test_one_valid_signature_among_others_is_enough(header: bytes) -> None:
    """F13: several signatures in one header are all looked at."""
    given = delivery(webhook_id=b"m1", webhook_timestamp=b"1772356400", webhook_signature=header)
    assert verify(given).subject == "t1"


def test_repeated_signature_headers_are_all_looked_at() -> None:
    """F13: a second header of the same name counts as well."""
    given = Delivery(
        "wavespeed",
        (
            (b"webhook-id", b"m1"),
            (b"webhook-timestamp", b"1772356400"),
            (b"webhook-signature", v3(key=b"other")),
            (b"webhook-signature", v3()),
        ),
        BODY,
        None,
        NOW,
    )
    assert verify(given).subject == "t1"


@pytest.mark.parametrize("missing", ["webhook_id", "webhook_timestamp", "webhook_signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    """F13: all three headers must be there."""
    headers = {
        "webhook_id": b"m1",
        "webhook_timestamp": b"1772356400",
        "webhook_signature": v3(),
    }
    del headers[missing]
    with pytest.raises(Unverified) as caught:
        verify(delivery(BODY, "wavespeed", **headers))
    assert caught.value.reason == "missing_header"


@pytest.mark.parametrize(
    ("id", "at"),
    [
        (b"", b"1772356400"),
        (b"a\x00b", b"1772356400"),
        (b"a\r\nx: y", b"1772356400"),
        ("ü".encode(), b"1772356400"),
        (b"a" * 257, b"1772356400"),
        (b"m1", b""),
        (b"m1", b"-1"),
        (b"m1", b"1.5"),
        (b"m1", b" 1772356400"),
        (b"m1", b"9" * 13),
        (b"m1", b"1e9"),
        (b"m1", "\u0661".encode()),
    ],
)
def test_ids_and_times_are_plain_or_refused(id: bytes, at: bytes) -> None:
    """F17: a well-signed message with an id or time that cannot be logged as it is gets a no."""
    with pytest.raises(Unverified) as caught:
        verify(signed(id=id, at=at))
    assert caught.value.reason == "malformed_header"


def test_a_repeated_id_is_refused() -> None:
    """F13: two webhook ids leave open which one was signed."""
    given = signed()
    twice = Delivery("wavespeed", (*given.headers, (b"webhook-id", b"m1")), BODY, None, NOW)
    with pytest.raises(Unverified):
        verify(twice)


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_inside_the_window(skew: int) -> None:
    """F6: five minutes on both sides are forgiven."""
    assert verify(signed(at=b"%d" % (NOW - skew))).subject == "t1"


@pytest.mark.parametrize("skew", [-301, 301, 10**9])
def test_outside_the_window_is_stale_on_both_sides(skew: int) -> None:
    """F5, F6: a well-signed message of another time is told apart, with its skew and task."""
    with pytest.raises(Stale) as caught:
        verify(signed(at=b"%d" % (NOW - skew)))
    assert (caught.value.skew, caught.value.subject, caught.value.status) == (skew, "t1", 401)


def test_a_forged_old_message_is_no_stale_one() -> None:
    """F4: nothing of an unsigned message is believed, not even that it is old."""
    given = delivery(webhook_id=b"m1", webhook_timestamp=b"1", webhook_signature=v3(at=b"2"))
    with pytest.raises(Unverified) as caught:
        verify(given)
    assert not isinstance(caught.value, Stale)


def test_leading_zeros_are_signed_as_they_came() -> None:
    """The signature is over the header's bytes, not over a number written anew."""
    assert verify(signed(at=b"01772356400")).occurred_at == NOW


def test_old_and_new_secret_both_pass() -> None:
    """F39: all configured secrets are tried."""
    assert verify(signed(), "whsec_new", SECRET).subject == "t1"
    with pytest.raises(Unverified):
        verify(signed(), "whsec_new", "whsec_newer")


@pytest.mark.parametrize("secret", ["", "whsec_", "c2VjcmV0"])
def test_a_secret_of_another_form_is_refused(secret: str) -> None:
    """F15: a secret that cannot be one says so at the start, without repeating itself."""
    with pytest.raises(ValueError, match="expected"):
        WaveSpeedSource().key(secret)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"id": 5, "status": "completed"}',
        b'{"id": "", "status": "completed"}',
        b'{"id": "t1"}',
        b'{"id": "t1", "status": null}',
        b'{"id": "a\\u0000b", "status": "completed"}',
        b'{"id": "a\\nb", "status": "completed"}',
        b'{"id": "\\ud800", "status": "completed"}',
        b'{"id": "' + b"a" * 257 + b'", "status": "completed"}',
        b'{"id": "t1", "status": "completed", "x": NaN}',
        b'{"id": "t1", "status": "completed", "x": 1e400}',
        b'{"id": "t1", "status": "completed", "id": "t2"}',
        b'{"id": "t1", "status": "completed", "x": "\\udfff"}',
        b'{"id": "t1", "status": "completed", "x": ' + b"9" * 5000 + b"}",
        b'{"id": "t1", "status": "completed", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "t1", "status": "completed"} trailing',
        b"\xff\xfe{}",
        b'{"id": "t1", "status": "caf\xe9"}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_signed_body_that_is_no_prediction_is_parked(body: bytes) -> None:
    """F11, F12: well signed and not what was expected: an event all the same, kept as it came."""
    event = verify(signed(body))
    assert event.parked
    assert event.body == body
    assert event.id.startswith("wavespeed:m1:")


def test_two_messages_with_one_id_are_two_events() -> None:
    """The webhook id is not promised to be unique: another body under it is not lost."""
    first = verify(signed(b'{"id":"t1","status":"processing"}', id=b"t1"))
    second = verify(signed(b'{"id":"t1","status":"pending"}', id=b"t1"))
    again = verify(signed(b'{"id":"t1","status":"processing"}', id=b"t1"))
    assert first.id != second.id
    assert first.id == again.id


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "timeout"])
def test_every_terminal_status_has_one_key(status: str) -> None:
    """F30: webhook, retry and reconcile of one result meet on one key, whatever the message id."""
    body = json.dumps({"id": "t1", "status": status}).encode()
    ids = {verify(signed(body, id=id)).id for id in (b"m1", b"m2")}
    assert ids == {f"wavespeed:t1:{status}"}


def test_an_unknown_status_is_kept_as_it_is() -> None:
    """A status nobody knows is neither dropped nor taken for another."""
    assert verify(signed(b'{"id":"t1","status":"on-hold"}')).type == "prediction.on-hold"


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"x-sig"]),
        st.binary(max_size=80) | st.sampled_from([b"m1", b"1772356400", v3(), b"v1,AAAA"]),
    ),
    max_size=6,
)


@given(headers=HEADERS, body=st.binary(max_size=200))
def test_any_delivery_gives_an_event_or_a_rejected(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """F13: whatever bytes arrive, each source answers with an Event or an Unverified."""
    given = Delivery("x", tuple(headers), body, None, NOW)
    sources: list[tuple[Any, list[Any]]] = [
        (WaveSpeedSource("x"), [KEY]),
        (
            StandardWebhooks("x"),
            [b"key", Ed25519PrivateKey.from_private_bytes(KEY[:32].ljust(32)).public_key()],
        ),
        (HeaderHmac("x", header="X-Sig", prefix=""), [b"key"]),
        (Insecure("x"), []),
    ]
    for source, keys in sources:
        answer: Event | Unverified
        try:
            answer = source.verify(given, keys, NOW)
        except Unverified as error:
            answer = error
        assert isinstance(answer, Event) == isinstance(source, Insecure)


@given(
    body=st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.sampled_from(["id", "status", "model"]), inner)
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_signed_body_becomes_an_event(body: bytes) -> None:
    """F11, F12: every signed body is an event whose names can be stored and logged."""
    event = verify(signed(body))
    for text in (event.id, event.type, event.subject, event.model):
        assert text is None or (text.isprintable() and len(text) < 700)
    assert event.parked or event.prediction is not None


PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = (
    "whpk_"
    + base64.b64encode(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
)
STANDARD = "whsec_" + base64.b64encode(b"a shared key of some length").decode()


def standard(*signatures: bytes, at: bytes = b"1772356400", body: bytes = BODY) -> Delivery:
    return delivery(
        body,
        "partner",
        webhook_id=b"m1",
        webhook_timestamp=at,
        webhook_signature=b" ".join(signatures),
    )


def v1(body: bytes = BODY, at: bytes = b"1772356400") -> bytes:
    mac = hmac.new(b"a shared key of some length", b"m1." + at + b"." + body, hashlib.sha256)
    return b"v1," + base64.b64encode(mac.digest())


def v1a(body: bytes = BODY, at: bytes = b"1772356400") -> bytes:
    return b"v1a," + base64.b64encode(PRIVATE.sign(b"m1." + at + b"." + body))


@pytest.mark.parametrize(
    ("secrets", "signatures"),
    [
        ([STANDARD], [v1()]),
        ([PUBLIC], [v1a()]),
        ([PUBLIC], [v1(), v1a()]),
        ([STANDARD, PUBLIC], [v1a()]),
        ([STANDARD, PUBLIC], [b"v1,AAAA", v1()]),
        ([PUBLIC], [b"v1a,AAAA", v1a()]),
    ],
)
def test_standard_webhooks_in_both_versions(secrets: list[str], signatures: list[bytes]) -> None:
    """Standard Webhooks: v1 under a shared key, v1a under a public key, side by side."""
    source = StandardWebhooks("partner")
    keys = [source.key(secret) for secret in secrets]
    assert source.verify(standard(*signatures), keys, NOW).id == "partner:t1:completed"


@pytest.mark.parametrize(
    ("secrets", "signatures"),
    [
        ([STANDARD], [v1a()]),
        ([PUBLIC], [v1()]),
        ([STANDARD], [v1(b"{}")]),
        ([PUBLIC], [v1a(b"{}")]),
        ([STANDARD, PUBLIC], [b"v1,%%%", b"v1a,%%%"]),
        ([STANDARD], [v3()]),
        ([], [v1()]),
    ],
)
def test_standard_webhooks_that_do_not_fit(secrets: list[str], signatures: list[bytes]) -> None:
    """F13: a version without its key, a wrong body or no base64 is refused."""
    source = StandardWebhooks("partner")
    with pytest.raises(Unverified):
        source.verify(standard(*signatures), [source.key(secret) for secret in secrets], NOW)


def test_a_standard_event_takes_its_type_from_the_signed_body() -> None:
    """F18: `type` of the body where it is no prediction, `message` where it names none."""
    source = StandardWebhooks("partner")
    keys = [source.key(STANDARD)]
    body = b'{"type":"invoice.paid","data":{}}'
    assert source.verify(standard(v1(body), body=body), keys, NOW).type == "invoice.paid"
    assert source.verify(standard(v1(b"{}"), body=b"{}"), keys, NOW).type == "message"


def test_a_stale_standard_event() -> None:
    """F5: the window holds for every source that signs a time."""
    source = StandardWebhooks("partner")
    with pytest.raises(Stale):
        source.verify(standard(v1(at=b"1"), at=b"1"), [source.key(STANDARD)], NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%", "whpk_AAAA", "plain", "other_AAAA"])
def test_a_standard_secret_of_another_form(secret: str) -> None:
    """F15: what cannot be a key says so at the start."""
    with pytest.raises(ValueError, match="expected"):
        StandardWebhooks("partner").key(secret)


@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_header_hmac(encoding: str) -> None:
    """GitHub's style: one header, a prefix, hex or base64; the body's digest is the message id."""
    mac = hmac.new(b"key", BODY, hashlib.sha256).digest()
    text = mac.hex().encode() if encoding == "hex" else base64.b64encode(mac)
    source = HeaderHmac("hub", header="X-Sig", prefix="sha256=", encoding=encoding)
    event = source.verify(delivery(source="hub", x_sig=b"sha256=" + text), [b"key"], NOW)
    assert (event.id, event.webhook_id) == (
        "hub:t1:completed",
        hashlib.sha256(BODY).hexdigest(),
    )


@pytest.mark.parametrize("value", [b"", b"sha256=", b"sha1=00", b"sha256=zz", b"00" * 32])
def test_a_header_hmac_that_does_not_fit(value: bytes) -> None:
    """F13: an empty header, another prefix, no hex: refused."""
    with pytest.raises(Unverified):
        HeaderHmac("hub", header="X-Sig").verify(delivery(x_sig=value), [b"key"], NOW)


def test_the_unsigned_delivery_header_is_no_key() -> None:
    """F5, F18: the same body under another unsigned delivery id is the same event."""
    body = b'{"action":"opened"}'
    sig = b"sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest().encode()
    source = HeaderHmac("hub", header="X-Sig")
    ids = {
        source.verify(
            delivery(body, "hub", x_sig=sig, x_github_delivery=unsigned), [b"key"], NOW
        ).id
        for unsigned in (b"1", b"2")
    }
    assert len(ids) == 1


def test_header_hmac_wants_a_secret() -> None:
    """F15: an empty secret is none."""
    with pytest.raises(ValueError, match="expected"):
        HeaderHmac("hub").key("")


def test_insecure_takes_no_secret_and_believes_all() -> None:
    """The development source verifies nothing, and a secret for it is a mistake."""
    with pytest.raises(ValueError, match="verifies nothing"):
        Insecure("dev").key("x")
    assert Insecure("dev").verify(delivery(source="dev"), [], NOW).id == "dev:t1:completed"


def test_one_source_s_secret_does_not_open_another() -> None:
    """F19: a body signed for one source is refused by another, and ids carry the source."""
    source = WaveSpeedSource("second")
    with pytest.raises(Unverified):
        source.verify(signed(), [source.key("whsec_another")], NOW)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_key_and_signature_is_compared_in_constant_time(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F14: on bytes, by `compare_digest`, and as often whichever of them fits."""
    compared: list[tuple[object, object]] = []

    monkeypatch.setattr("receiver.sources.signing.hmac", _Noting(compared))
    keys = [b"a", b"b", b"c"]
    right = hmac.digest(keys[place], b"message", "sha256")
    assert hmac_fits(keys, b"message", [b"short", right, bytes(32)])
    assert len(compared) == 9
    assert all(type(each) is bytes for pair in compared for each in pair)


class _Noting:
    """The module `hmac`, with its comparisons noted."""

    digest = staticmethod(hmac.digest)

    def __init__(self, seen: list[tuple[object, object]]) -> None:
        self._seen = seen

    def compare_digest(self, one: bytes, other: bytes) -> bool:
        self._seen.append((one, other))
        return hmac.compare_digest(one, other)
