"""`http`: forwards the event as a signed webhook.

    [handlers.shop]
    use = "http"
    url = "https://shop.example/hooks/video"    # where to POST; required
    secret = "env:SHOP_SECRET"      # whsec_ and base64; a list while one is replaced; required
    allow = ["10.1.0.0/16"]         # private targets that may be called; default none
    headers = { Authorization = "env:SHOP_AUTHORIZATION" }  # sent with every request; default none

The body is the JSON of `receiver.handlers.envelope`. It is signed after Standard Webhooks, so that
every library of that standard verifies it. `webhook-id` is the event's id, `Idempotency-Key` the
idempotency key; both are the same in every attempt, percent-encoded if they contain anything but
plain ASCII.

| response | outcome |
|---|---|
| 2xx | done, with the result `{"status": …}` |
| 408, 409, 425, 429, 3xx, 5xx, no response in time, no connection | retried by the retry policy |
| 429 or 503 with Retry-After | retried after that time; no event of this handler is sent before |
| any other 4xx, also 410; a private target that `allow` does not name | dead, not retried |
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from receiver.errors import GiveUp, Refused, Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.envelope import ascii_key, encode_envelope
from receiver.handlers.settings import AllowedTargets, SomeTexts, read
from receiver.outbound.client import LazyClient, check_reachable, web_url
from submitter.api.responses import retry_after

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_MAX_RESPONSE_BYTES = 64 * 1024
_RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]{0,8190}[\x21-\x7e])?")


def _secrets(secrets: tuple[str, ...]) -> tuple[str, ...]:
    for secret in secrets:
        secret_bytes(secret)
    return secrets


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"other headers than {name}, which the handler sets itself")
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("header names and values of visible ASCII")
    return headers


class HttpSettings(BaseModel):
    """The settings of the handler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(web_url)] = Field(
        repr=False, description="the URL to send to, such as https://shop.example/hooks"
    )
    secret: Annotated[SomeTexts, AfterValidator(_secrets)] = Field(
        repr=False, description="whsec_ and 24 to 64 bytes in base64; the receiver has it too"
    )
    allow: AllowedTargets = ()
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(
        default_factory=dict, repr=False
    )


def secret_bytes(secret: str) -> bytes:
    """The signing key of a Standard Webhooks secret.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

    Raises:
        ValueError: it is not a secret; the text says what was expected, and does not show it.
    """
    try:
        found = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not 24 <= len(found) <= 64:
        raise ValueError("whsec_ and 24 to 64 bytes in base64")
    return found


def sign(keys: Sequence[bytes], message: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key."""
    content = f"{message}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(each, content, "sha256")).decode() for each in keys
    )


class HttpHandler:
    """Sends events to one URL, over kept-alive connections."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.time) -> None:
        self._url = httpx.URL(settings.url)
        self._keys = [secret_bytes(secret) for secret in settings.secret]
        self._headers = settings.headers
        self._clock = clock
        self._allow = settings.allow
        self._client = LazyClient(settings.allow, max_body=_MAX_RESPONSE_BYTES)

    async def __call__(self, event: Event, context: Context) -> dict[str, int]:
        now = self._clock()
        body = encode_envelope(event)
        message = ascii_key(event.id)
        headers = {
            **self._headers,
            "content-type": "application/json",
            "idempotency-key": ascii_key(context.key),
            "webhook-id": message,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": sign(self._keys, message, int(now), body),
        }
        try:
            async with self._client.open().stream(
                "POST",
                self._url,
                content=body,
                headers=headers,
                timeout=max(context.deadline - now, 0.001),
            ) as response:
                await _drain(response)
        except Refused as error:
            raise GiveUp(str(error)) from None
        except httpx.HTTPError as error:
            # The error's own text may contain the URL.
            raise Retry(f"{self._url.host}: {type(error).__name__}") from None
        return _result(response, now)

    async def check(self) -> str:
        """Connect to the target; sends nothing."""
        return await check_reachable(str(self._url), self._allow)

    async def close(self) -> None:
        await self._client.close()


def create(name: str, settings: Mapping[str, Any]) -> HttpHandler:
    """Make the handler."""
    return HttpHandler(read(HttpSettings, name, settings))


async def _drain(response: httpx.Response) -> None:
    """Try to read the rest of the response, so that the connection can be used again."""
    with suppress(httpx.HTTPError, Refused, TimeoutError):
        async with asyncio.timeout(1.0):
            await response.aread()


def _result(response: httpx.Response, now: float) -> dict[str, int]:
    status = response.status_code
    if 200 <= status < 300:
        return {"status": status}
    text = f"HTTP {status}"
    if status in (429, 503):
        wait = retry_after(response.headers.get("retry-after", ""), now)
        if wait is not None:
            raise Retry(f"{text}, Retry-After {wait:.0f} s", after=wait, pause=True)
    if 400 <= status < 500 and status not in _RETRIED_STATUSES:
        raise GiveUp(text)
    raise Retry(text)
