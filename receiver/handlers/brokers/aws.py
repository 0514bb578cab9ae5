"""`aws`: sends the event to SQS, SNS or EventBridge.

    [handlers.events]
    use = "aws"
    to = "https://sqs.eu-west-1.amazonaws.com/123456789012/videos"
    # or an SNS topic:        "arn:aws:sns:eu-west-1:123456789012:videos"
    # or an EventBridge bus:  "arn:aws:events:eu-west-1:123456789012:event-bus/videos"
    region = "eu-west-1"                    # where `to` does not say it
    profile = "video"                       # of ~/.aws/config; credentials as AWS's tools find them
    endpoint = "http://127.0.0.1:4566"      # something else that speaks as AWS does

The message is a CloudEvent; see `cloudevent`. In binary mode its attributes are
message attributes. EventBridge has none: its `Detail` is the whole CloudEvent, `Source` is
`wavehook.` and the source's name, and `DetailType` the CloudEvent's type.

For a FIFO queue or topic, the group is the task id, and the deduplication id the dispatch's key:
what is sent again within 5 minutes is not there twice. Others do not know an event again: where an
answer was lost, it comes twice, with one `id`.

What concurrent runs send goes out together, up to ten in a call. Done means that AWS has taken
this one; the result is `{"message": …}`, its id there.

What SQS, SNS and EventBridge each want of a message, and say of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.brokers.batching import Batches
from receiver.handlers.brokers.cloudevent import PREFIX, Envelopes, Message, Shape
from receiver.handlers.brokers.connection import CONNECT, Link, within
from receiver.handlers.envelope import happened_at, instant, visible
from receiver.handlers.settings import read
from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a call.

    Attributes:
        fields: of the entry, as the service wants it.
        size: in bytes, as AWS counts it.
    """

    fields: dict[str, Any] = field(repr=False)
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What AWS has not taken.

    Attributes:
        code: AWS's own, such as `ThrottlingException`.
        words: AWS's own, where it has any.
    """

    code: str
    words: str = ""


class Target(ABC):
    """A queue, topic or bus.

    Args:
        to: its URL or ARN.
    """

    service: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, to: str) -> None:
        self._to = to
        self.name = to.replace("/", ":").rpartition(":")[2]
        self._fifo = self.name.endswith(".fifo")

    @abstractmethod
    def entry(self, message: Message, event: Event, key: str) -> Entry:
        """A message as this service takes it; `key` is the dispatch's."""

    @abstractmethod
    def put(self, client: Any, entries: Sequence[Entry]) -> list[str | Refusal]:
        """One call, and what became of each entry: its id there, or why not. Blocks."""

    @abstractmethod
    def look(self, client: Any) -> None:
        """Ask for it, without sending anything. Blocks."""


class _Numbered(Target):
    """SQS and SNS: attributes, FIFO, and answers by number."""

    body: ClassVar[str]

    def entry(self, message: Message, event: Event, key: str) -> Entry:
        """A message with attributes; for FIFO, with its group and what it is known again by."""
        attributes = {"content-type": message.content_type}
        attributes |= {f"ce-{name}": value for name, value in message.attributes.items()}
        fields: dict[str, Any] = {
            self.body: message.body.decode("ascii"),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            },
        }
        if self._fifo:
            fields["MessageGroupId"] = visible(event.subject or event.id, 128)
            fields["MessageDeduplicationId"] = visible(key, 128)
        beside = sum(len(name) + len("String") + len(value) for name, value in attributes.items())
        return Entry(fields, len(message.body) + beside)

    def put(self, client: Any, entries: Sequence[Entry]) -> list[str | Refusal]:
        """One call; what went well and what did not are two lists."""
        numbered = [{"Id": str(number), **one.fields} for number, one in enumerate(entries)]
        answer = self.call(client, numbered)
        came: dict[str, str | Refusal] = {
            one["Id"]: one["MessageId"] for one in answer.get("Successful", ())
        }
        for one in answer.get("Failed", ()):
            came[one["Id"]] = Refusal(one["Code"], one.get("Message", ""))
        return [came.get(one["Id"], _UNSAID) for one in numbered]

    @abstractmethod
    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        """The call itself."""


class Sqs(_Numbered):
    """A queue."""

    service = "sqs"
    kind = "SQS queue"
    body = "MessageBody"

    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        """As SQS has it."""
        answer: Mapping[str, Any] = client.send_message_batch(QueueUrl=self._to, Entries=entries)
        return answer

    def look(self, client: Any) -> None:
        """Ask for its ARN."""
        client.get_queue_attributes(QueueUrl=self._to, AttributeNames=["QueueArn"])


class Sns(_Numbered):
    """A topic."""

    service = "sns"
    kind = "SNS topic"
    body = "Message"

    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        """As SNS has it."""
        answer: Mapping[str, Any] = client.publish_batch(
            TopicArn=self._to, PublishBatchRequestEntries=entries
        )
        return answer

    def look(self, client: Any) -> None:
        """Ask for its attributes."""
        client.get_topic_attributes(TopicArn=self._to)


class EventBridge(Target):
    """A bus: no attributes, and answers in the order of the entries."""

    service = "events"
    kind = "EventBridge bus"

    def entry(self, message: Message, event: Event, key: str) -> Entry:  # noqa: ARG002 - it has none
        """An event of the bus; the whole CloudEvent is its detail."""
        fields = {
            "EventBusName": self._to,
            "Source": f"{PREFIX}{visible(event.source, 128)}",
            "DetailType": f"{PREFIX}{visible(event.type, 119)}",
            "Time": instant(happened_at(event)),
            "Detail": message.body.decode("ascii"),
        }
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
        texts = (fields["Source"], fields["DetailType"], fields["Detail"])
        return Entry(fields, 14 + sum(len(str(text)) for text in texts))

    def put(self, client: Any, entries: Sequence[Entry]) -> list[str | Refusal]:
        """One call; one that went well may hold entries that did not."""
        answer = client.put_events(Entries=[one.fields for one in entries])
        return [
            one.get("EventId") or Refusal(one.get("ErrorCode", ""), one.get("ErrorMessage", ""))
            for one in answer["Entries"]
        ]

    def look(self, client: Any) -> None:
        """Ask for its description."""
        client.describe_event_bus(Name=self._to)


_UNSAID = Refusal("", "the answer does not say what became of it")


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
