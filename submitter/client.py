"""The client: thin I/O around `submitter.protocol`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

import httpx
import stamina

from submitter import address, catalogue, protocol
from submitter.errors import (
    BadInput,
    BadSettings,
    Fault,
    RateLimited,
    SubmissionUnknown,
    Unavailable,
)
from submitter.prediction import JSON, Prediction
from submitter.protocol import Answer, Api, Request
from submitter.quiet_url import quieten
from submitter.seal import Seal

BASE_URL = "https://api.wavespeed.ai"

_TIMEOUT = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=60.0)
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)

# Before a connection stands, and before one is free, nothing of the request can have been sent.
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_LONGEST_WAIT = 60.0


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reader(Protocol[T_co]):
    """Reads an answer, or raises."""

    def __call__(self, answer: Answer, *, now: float) -> T_co:
        """See `submitter.protocol`."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that the API accepted.

    Attributes:
        task_id: the API's id of it.
        model: the model's id.
        prediction: the task as the API described it in its answer.
    """

    task_id: str
    model: str
    prediction: Prediction


class WaveSpeed:
    """Talks to the WaveSpeedAI API. Use it as `async with WaveSpeed() as wave:`.

    Args:
        api_key: by default `WAVESPEED_API_KEY`.
        base_url: by default `WAVESPEED_BASE_URL`, or the API's own address.
        webhook_url: where the receiver is reached from outside (`WAVEHOOK_PUBLIC_URL`); webhooks
            go to `/webhooks/wavespeed` below it. None asks for no webhooks.
        seal: seals contexts into the webhook URL.
        transport: how requests travel, for tests and proxies of one's own.
        clock: gives Unix seconds.

    Raises:
        BadSettings: one of these cannot work.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        webhook_url: str | None = None,
        seal: Seal | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = (api_key or os.environ.get("WAVESPEED_API_KEY", "")).strip()
        if not key:
            raise BadSettings("WAVESPEED_API_KEY", "is not set; make a key at wavespeed.ai")
        self._api = Api(base_url or os.environ.get("WAVESPEED_BASE_URL") or BASE_URL, key)
        self._public_url = address.public_base(webhook_url) if webhook_url else None
        self._seal = seal
        self._transport = transport
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._again = stamina.AsyncRetryingCaller(
            attempts=5, timeout=90.0, wait_initial=0.5, wait_max=10.0, wait_jitter=1.0
        ).on(_wait)

    async def __aenter__(self) -> Self:
        # Redirects are not followed: they would send a submission twice, or the key elsewhere.
        self._http = httpx.AsyncClient(
            transport=self._transport,
            timeout=_TIMEOUT,
            limits=_LIMITS,
            follow_redirects=False,
            # The query of a submission holds the sealed context.
            event_hooks={"request": [quieten]},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def submit(
        self,
        model: str,
        input: Mapping[str, JSON] | None = None,
        *,
        context: JSON = None,
        webhook: str | bool = True,
        **fields: JSON,
    ) -> Submission:
        """Submit a task; the request goes out exactly once.

        Args:
            model: such as `kwaivgi/kling-v2.1-i2v-standard`.
            input: the model's input; `fields` are added to it.
            context: any small JSON, given to every handler beside the result.
            webhook: True uses the client's `webhook_url`, where it has one; False asks for no
                webhook; a URL is used as it is, and leaves no place for a context.
            **fields: single fields of the input.

        Raises:
            BadInput: nothing was sent; carries all faults.
            BadSettings: a context needs `webhook_url` and `seal`.
            ApiError: the API refused, and created nothing; RateLimited may be sent again.
            Unavailable: the API could not be reached; nothing was sent.
            SubmissionUnknown: the task may exist and be billed; see its docstring.
        """
        given = dict(input or {})
        whole = {**given, **fields}
        faults = [Fault(name, "is given twice") for name in fields if name in given]
        faults += filter(None, [protocol.model_fault(model)])
        # A model that is not built in is checked by the API itself, beyond being JSON.
        faults += catalogue.check(catalogue.builtin(model) or {}, whole)
        sent_at = self._clock()
        try:
            url = self._webhook(context, webhook, model, sent_at)
        except BadInput as error:
            if not faults:
                raise
            raise BadInput([*faults, *error.faults]) from None
        if faults:
            raise BadInput(faults)
        request = self._api.submit(model, whole, url)
        try:
            answer = await self._send(request)
        except _NOTHING_SENT as error:
            raise Unavailable(f"{type(error).__name__}; nothing was created") from None
        except httpx.HTTPError as error:
            raise SubmissionUnknown(model, sent_at, type(error).__name__) from None
        prediction = protocol.read_submission(
            answer, model=model, sent_at=sent_at, now=self._clock()
        )
        return Submission(prediction.id, model, prediction)

    async def result(self, task_id: str) -> Prediction:
        """Ask once how a task stands; a failed task is an answer, no error.

        Network errors, 429 and 5xx are tried again with growing, jittered waits.

        Raises:
            BadInput: no task can have this id.
            ApiError: the API refused, such as NotFound after 7 days.
            Unavailable: it did not answer in any of the tries.
        """
        request = self._api.result(task_id)
        return await self._again(self._read, request, protocol.read_prediction)

    async def webhook_secret(self) -> str:
        """Fetch the secret that the webhooks for this API key are signed with.

        Raises:
            ApiError: the API refused, such as AuthFailed.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._again(self._read, self._api.webhook_secret(), protocol.read_secret)

    def _webhook(self, context: JSON, webhook: str | bool, model: str, now: float) -> str | None:
        if context is None:
            if webhook is True:
                return self._public_url and address.webhook_url(self._public_url, None)
            reason = address.url_fault(webhook) if webhook else None
            if reason:
                raise BadInput([Fault("webhook", reason)])
            return webhook or None
        if webhook is not True:
            how = "travels in the client's own webhook URL; leave `webhook` as it is"
            raise BadInput([Fault("context", how)])
        if self._public_url is None:
            raise BadSettings("WAVEHOOK_PUBLIC_URL", "is needed: the context travels in its URL")
        if self._seal is None:
            raise BadSettings("WAVEHOOK_SEAL_KEYS", "is needed: the context is sealed with it")
        token = self._seal.seal(context, model=model, now=now)
        return address.webhook_url(self._public_url, token)

    async def _read(self, request: Request, reader: Reader[T]) -> T:
        try:
            answer = await self._send(request)
        except httpx.HTTPError as error:
            raise Unavailable(type(error).__name__) from None
        return reader(answer, now=self._clock())

    async def _send(self, request: Request) -> Answer:
        if self._http is None:
            raise RuntimeError("use the client as `async with WaveSpeed() as wave:`")
        response = await self._http.request(
            request.method, request.url, headers=dict(request.headers), content=request.content
        )
        return Answer(response.status_code, dict(response.headers), response.content)


def _wait(error: Exception) -> bool | float:
    """Whether to ask again, or after how many seconds where the API said so."""
    if not isinstance(error, RateLimited | Unavailable):
        return False
    if error.retry_after is None:
        return True
    if error.retry_after > _LONGEST_WAIT:
        return False
    # Many clients are told the same second; they need not all come back in it.
    return error.retry_after + random.uniform(0.0, 1.0)  # noqa: S311 - no secret
