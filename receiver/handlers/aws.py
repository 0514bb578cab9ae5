"""`aws`: sends the event to SQS, SNS or EventBridge.

    [handlers.events]
    use = "aws"
    to = "https://sqs.eu-west-1.amazonaws.com/123456789012/videos"
    # or an SNS topic:        "arn:aws:sns:eu-west-1:123456789012:videos"
    # or an EventBridge bus:  "arn:aws:events:eu-west-1:123456789012:event-bus/videos"
    region = "eu-west-1"                    # where `to` does not say it
    profile = "video"                       # of ~/.aws/config; credentials as AWS's tools find them
    endpoint = "http://127.0.0.1:4566"      # something else that speaks as AWS does

The message is a CloudEvent; see `receiver.handlers.cloudevent`. In binary mode its attributes are
message attributes. EventBridge has none: its `Detail` is the whole CloudEvent, `Source` is
`wavehook.` and the source's name, and `DetailType` the CloudEvent's type.

For a FIFO queue or topic, the group is the task id, and the deduplication id the dispatch's key:
what is sent again within 5 minutes is not there twice. Others do not know an event again: where an
answer was lost, it comes twice, with one `id`.

What concurrent runs send goes out together, up to ten in a call. Done means that AWS has taken
this one; the result is `{"message": …}`, its id there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.aws_targets import Entry, EventBridge, Refusal, Sns, Sqs, Target
from receiver.handlers.base import Context
from receiver.handlers.batching import Batches
from receiver.handlers.cloudevent import Envelopes, Shape
from receiver.handlers.link import CONNECT, Link, within
from receiver.handlers.settings import read
from submitter.prediction import JSON

LIMIT = 256 * 1024
"""Bytes of a message, and of a call."""

MOST = 10
"""Messages in a call."""

CALLS = 4
"""On their way at once, each in a thread of its own."""

PAUSE = 1.0
"""Seconds that the handler waits after AWS has said that it is too much."""

_QUEUE = re.compile(r"https?://[^/?#@\s]+/[^?#\s]+")
_ARN = re.compile(r"arn:aws[a-z-]*:(sns|events):([a-z0-9-]+):\d*:(\S+)")
_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_TOO_MUCH = re.compile(r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|OverLimit")
_NOT_ALLOWED = re.compile(r"AccessDenied|NotAuthorized|AuthorizationError")
_Answer = TypeVar("_Answer")


def _to(text: str) -> str:
    if not _QUEUE.fullmatch(text) and not _ARN.fullmatch(text):
        raise ValueError("a queue's URL, or the ARN of an SNS topic or an EventBridge bus")
    return text


class Settings(Shape):
    """The handler's own settings."""

    to: Annotated[str, AfterValidator(_to)] = Field(
        description="a queue's URL, or the ARN of an SNS topic or an EventBridge bus"
    )
    region: str | None = None
    profile: str | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@\s]+$")] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Settings:
        if self.mode == "binary" and isinstance(self.target, EventBridge):
            raise ValueError('`mode = "structured"` for EventBridge, which has no attributes')
        return self

    @property
    def target(self) -> Target:
        """What `to` names."""
        found = _ARN.fullmatch(self.to)
        if found is None:
            return Sqs(self.to)
        return Sns(self.to) if found[1] == "sns" else EventBridge(self.to)

    @property
    def place(self) -> dict[str, str | None]:
        """Where boto3 finds it."""
        topic, url = _ARN.fullmatch(self.to), urlsplit(self.to)
        queue = _HOST.fullmatch(url.hostname or "")
        region = topic[2] if topic else queue[1] if queue else None
        elsewhere = None if topic or queue else f"{url.scheme}://{url.netloc}"
        return {"region_name": self.region or region, "endpoint_url": self.endpoint or elsewhere}


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A client of boto3, which blocks, and the threads in which it does."""

    client: Any = field(repr=False)
    threads: ThreadPoolExecutor

    async def call(self, work: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run something with the client in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, work, self.client, *arguments)


class Aws:
    """Sends events to one queue, topic or bus."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._target = settings.target
        self._where = f"{self._target.kind} {self._target.name}"
        self._envelopes = Envelopes(settings)
        self._link = Link(self._where, self._connect, _disconnect)
        self._batches: Batches[Entry, str] = Batches(
            self._send, most=MOST, calls=CALLS, size=lambda entry: entry.size, room=LIMIT
        )

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Send the event; see the module's docstring for what done means."""
        entry = self._target.entry(self._envelopes.message(event), event, context.key)
        if entry.size > LIMIT:
            raise GiveUp(f"{self._where}: {entry.size} bytes are more than the {LIMIT} it takes")
        left = context.deadline - self._clock()
        return {"message": await within(left, self._where, self._batches.put(entry))}

    async def check(self) -> str:
        """Look whether it is there, without sending anything."""
        caller = await self._link.get()
        try:
            await caller.call(self._target.look)
        except Exception as error:  # noqa: BLE001 - botocore's have no common base
            refusal = _refusal(error)
            if _NOT_ALLOWED.search(refusal.code):
                return f"{self._where}: we may not look; the first event shows whether we may send"
            raise self._retry(refusal) from None
        return f"{self._where}: it is there"

    async def close(self) -> None:
        """Let threads and connections go; the next event makes new ones."""
        await self._batches.close()
        await self._link.close()

    async def _connect(self) -> Caller:
        threads = ThreadPoolExecutor(CALLS, thread_name_prefix="wavehook-aws")
        loop = asyncio.get_running_loop()
        try:
            return Caller(await loop.run_in_executor(threads, _client, self._settings), threads)
        except BaseException as error:
            threads.shutdown(wait=False)
            if isinstance(error, Exception):
                raise self._retry(_refusal(error)) from None
            raise

    async def _send(self, entries: Sequence[Entry]) -> list[str | Exception]:
        caller = await self._link.get()
        try:
            answers = await caller.call(self._target.put, entries)
        except Exception as error:  # noqa: BLE001 - botocore's have no common base
            return [self._retry(_refusal(error))] * len(entries)
        return [self._retry(one) if isinstance(one, Refusal) else one for one in answers]

    def _retry(self, refusal: Refusal) -> Retry:
        words = " ".join(part for part in (refusal.code, refusal.words) if part)
        if _TOO_MUCH.search(refusal.code):
            return Retry(f"{self._where}: {words}", after=PAUSE, pause=True)
        return Retry(f"{self._where}: {words}")


def create(name: str, settings: Mapping[str, Any]) -> Aws:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: the extra is not installed.
    """
    import boto3  # noqa: F401 - so that it is missed at start

    return Aws(read(Settings, name, settings))


def _client(settings: Settings) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    return Session(profile_name=settings.profile).client(
        settings.target.service,
        **settings.place,
        config=Config(
            connect_timeout=CONNECT / 2,
            read_timeout=CONNECT,
            max_pool_connections=CALLS,
            # The dispatcher tries again.
            retries={"total_max_attempts": 1},
        ),
    )


async def _disconnect(caller: Caller) -> None:
    caller.threads.shutdown(wait=False, cancel_futures=True)
    caller.client.close()


def _refusal(error: Exception) -> Refusal:
    """AWS's own words, or what kept us from it."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        about = error.response.get("Error", {})
        return Refusal(str(about.get("Code", "")), str(about.get("Message", "")))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Refusal(
            "", "there are no credentials; set `profile`, or AWS_ACCESS_KEY_ID and the rest"
        )
    if isinstance(error, exceptions.NoRegionError):
        return Refusal("", "there is no region; set `region` or AWS_REGION")
    if isinstance(error, exceptions.ProfileNotFound):
        return Refusal("", "there is no such `profile` in ~/.aws/config")
    if isinstance(error, exceptions.HTTPClientError | exceptions.EndpointConnectionError):
        return Refusal("", f"no connection, or it broke ({error})")
    return Refusal("", type(error).__name__)
