"""`aws`: sends the event to an SQS queue, an SNS topic or an EventBridge bus.

    [handlers.events]
    use = "aws"
    to = "https://sqs.eu-west-1.amazonaws.com/123456789012/videos"  # a queue's URL; required
    # or an SNS topic:        "arn:aws:sns:eu-west-1:123456789012:videos"
    # or an EventBridge bus:  "arn:aws:events:eu-west-1:123456789012:event-bus/videos"
    region = "eu-west-1"                    # only if `to` does not contain it
    profile = "video"                       # of ~/.aws/config; default: boto3's usual credentials
    endpoint = "http://127.0.0.1:4566"      # a service that is compatible with AWS; default AWS
    mode, source                            # of the CloudEvent, see `cloudevent`

In binary mode the attributes are message attributes. EventBridge has no attributes and no binary
mode: `Detail` is the whole CloudEvent, `Source` is `wavehook.` and the source's name, `DetailType`
is the CloudEvent's type. Events of concurrent runs are sent in one call, up to ten.

Done: AWS has accepted this event, whatever became of the others of its call. The result is
`{"message": …}`, its id at AWS.

Retried: AWS refuses the event or the call, the connection fails, or there is no answer before the
handler's `timeout`. When AWS throttles, the whole handler pauses for 1 s. Not retried: the event
is larger than 256 KiB.

Duplicates: a FIFO queue or topic drops a second copy for 5 minutes; its group is the task id, its
deduplication id the idempotency key. Others do not detect duplicates: after a lost answer the
event may arrive twice, with the same `id`.
"""

from __future__ import annotations

import asyncio
import re
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
from receiver.handlers.brokers.batching import SendBatcher
from receiver.handlers.brokers.cloudevent import (
    TYPE_PREFIX,
    BrokerMessage,
    CloudEventEncoder,
    CloudEventSettings,
)
from receiver.handlers.brokers.connection import CONNECT_TIMEOUT_S, SharedConnection
from receiver.handlers.envelope import happened_at, visible_ascii
from receiver.handlers.settings import matching, read
from submitter.prediction import JSON
from submitter.timestamps import utc_datetime

MAX_CALL_BYTES = 256 * 1024
"""Of a call, and so of a message."""

MAX_CALL_MESSAGES = 10

MAX_CONCURRENT_CALLS = 4
"""Each in a thread: boto3 blocks."""

THROTTLED_PAUSE_S = 1.0

_TARGET_EXPECTED = "a queue's URL, or the ARN of an SNS topic or an EventBridge bus"
_QUEUE_URL = re.compile(r"https?://[^/?#@\s]+/[^?#\s]+")
_ARN = re.compile(r"arn:aws[a-z-]*:(sns|events):([a-z0-9-]+):\d*:(\S+)")
_SQS_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_THROTTLED = re.compile(r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|OverLimit")
_ACCESS_DENIED = re.compile(r"AccessDenied|NotAuthorized|AuthorizationError")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One message of a call.

    Attributes:
        fields: of the entry, as the service defines them.
        size: in bytes, as AWS counts it.
    """

    fields: dict[str, Any] = field(repr=False)
    size: int


@dataclass(frozen=True, slots=True)
class AwsError:
    """The reason why AWS has not accepted a message.

    Attributes:
        code: AWS's, such as `ThrottlingException`; empty for an error on this side.
        text: AWS's or ours.
    """

    code: str
    text: str = ""


_NOT_IN_ANSWER = AwsError("", "the answer does not say what became of it")


class AwsTarget(ABC):
    """The queue, topic or bus that events are sent to.

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
    def entry(self, message: BrokerMessage, event: Event, key: str) -> BatchEntry:
        """A message in this service's form; `key` is the idempotency key."""

    @abstractmethod
    def send(self, client: Any, entries: Sequence[BatchEntry]) -> list[str | AwsError]:
        """Send entries in one call; return each one's id at AWS, or its error. Blocks."""

    @abstractmethod
    def find(self, client: Any) -> None:
        """Ask AWS for the target; fails if it does not exist. Blocks."""


class _AttributesTarget(AwsTarget):
    """SQS and SNS: they have message attributes and FIFO, and answer by the entries' ids."""

    body_field: ClassVar[str]

    def entry(self, message: BrokerMessage, event: Event, key: str) -> BatchEntry:
        attributes = message.headers("ce-")
        fields: dict[str, Any] = {
            self.body_field: message.body.decode("ascii"),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            },
        }
        if self._fifo:
            fields["MessageGroupId"] = visible_ascii(event.subject or event.id, 128)
            fields["MessageDeduplicationId"] = visible_ascii(key, 128)
        beside = sum(len(name) + len("String") + len(value) for name, value in attributes.items())
        return BatchEntry(fields, len(message.body) + beside)

    def send(self, client: Any, entries: Sequence[BatchEntry]) -> list[str | AwsError]:
        numbered = [{"Id": str(number), **one.fields} for number, one in enumerate(entries)]
        answer = self.call(client, numbered)
        outcomes: dict[str, str | AwsError] = {
            one["Id"]: one["MessageId"] for one in answer.get("Successful", ())
        }
        for one in answer.get("Failed", ()):
            outcomes[one["Id"]] = AwsError(one["Code"], one.get("Message", ""))
        return [outcomes.get(one["Id"], _NOT_IN_ANSWER) for one in numbered]

    @abstractmethod
    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        """Make the service's call."""


class SqsQueue(_AttributesTarget):
    """An SQS queue."""

    service = "sqs"
    kind = "SQS queue"
    body_field = "MessageBody"

    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client.send_message_batch(QueueUrl=self._to, Entries=entries)
        return answer

    def find(self, client: Any) -> None:
        client.get_queue_attributes(QueueUrl=self._to, AttributeNames=["QueueArn"])


class SnsTopic(_AttributesTarget):
    """An SNS topic."""

    service = "sns"
    kind = "SNS topic"
    body_field = "Message"

    def call(self, client: Any, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client.publish_batch(
            TopicArn=self._to, PublishBatchRequestEntries=entries
        )
        return answer

    def find(self, client: Any) -> None:
        client.get_topic_attributes(TopicArn=self._to)


class EventBridgeBus(AwsTarget):
    """An EventBridge bus: it has no attributes, and answers in the order of the entries."""

    service = "events"
    kind = "EventBridge bus"

    def entry(self, message: BrokerMessage, event: Event, key: str) -> BatchEntry:  # noqa: ARG002 - no key
        fields = {
            "EventBusName": self._to,
            "Source": f"{TYPE_PREFIX}{visible_ascii(event.source, 128)}",
            "DetailType": f"{TYPE_PREFIX}{visible_ascii(event.type, 119)}",
            "Time": utc_datetime(happened_at(event)),
            "Detail": message.body.decode("ascii"),
        }
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
        texts = (fields["Source"], fields["DetailType"], fields["Detail"])
        return BatchEntry(fields, 14 + sum(len(str(text)) for text in texts))

    def send(self, client: Any, entries: Sequence[BatchEntry]) -> list[str | AwsError]:
        answer = client.put_events(Entries=[one.fields for one in entries])
        return [
            one.get("EventId") or AwsError(one.get("ErrorCode", ""), one.get("ErrorMessage", ""))
            for one in answer["Entries"]
        ]

    def find(self, client: Any) -> None:
        client.describe_event_bus(Name=self._to)


def _target_text(text: str) -> str:
    if not _QUEUE_URL.fullmatch(text) and not _ARN.fullmatch(text):
        raise ValueError(_TARGET_EXPECTED)
    return text


_Endpoint = Annotated[
    str, matching(r"https?://[^/@\s]+", "the URL of a server, such as http://127.0.0.1:4566")
]


class AwsSettings(CloudEventSettings):
    """The settings of the handler."""

    to: Annotated[str, AfterValidator(_target_text)] = Field(description=_TARGET_EXPECTED)
    region: str | None = None
    profile: str | None = None
    endpoint: _Endpoint | None = None

    @model_validator(mode="after")
    def _mode_fits(self) -> AwsSettings:
        if self.mode == "binary" and isinstance(self.target, EventBridgeBus):
            raise ValueError('`mode = "structured"` for EventBridge, which has no attributes')
        return self

    @property
    def target(self) -> AwsTarget:
        """The target that `to` names."""
        found = _ARN.fullmatch(self.to)
        if found is None:
            return SqsQueue(self.to)
        return SnsTopic(self.to) if found[1] == "sns" else EventBridgeBus(self.to)

    @property
    def location(self) -> dict[str, str | None]:
        """The region and the endpoint for boto3's client."""
        arn, url = _ARN.fullmatch(self.to), urlsplit(self.to)
        queue = _SQS_HOST.fullmatch(url.hostname or "")
        region = arn[2] if arn else queue[1] if queue else None
        other = None if arn or queue else f"{url.scheme}://{url.netloc}"
        return {"region_name": self.region or region, "endpoint_url": self.endpoint or other}


@dataclass(frozen=True, slots=True, eq=False)
class AwsClient:
    """A client of boto3, and the threads in which its blocking calls run."""

    client: Any = field(repr=False)
    threads: ThreadPoolExecutor

    async def call(self, work: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a function with the client in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, work, self.client, *arguments)

    async def close(self) -> None:
        """Close the connections; a call that is in flight ends by itself."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()


class AwsHandler:
    """Sends events to one queue, topic or bus."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        self._target = settings.target
        self._label = f"{self._target.kind} {self._target.name}"
        self._encoder = CloudEventEncoder(settings)
        self._connection = SharedConnection(self._label, self._connect, AwsClient.close)
        self._batcher: SendBatcher[BatchEntry, str] = SendBatcher(
            self._send,
            max_items=MAX_CALL_MESSAGES,
            max_calls=MAX_CONCURRENT_CALLS,
            item_size=lambda entry: entry.size,
            max_bytes=MAX_CALL_BYTES,
        )

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        entry = self._target.entry(self._encoder.message(event), event, context.key)
        if entry.size > MAX_CALL_BYTES:
            text = f"{entry.size} bytes are more than the {MAX_CALL_BYTES} it takes"
            raise GiveUp(f"{self._label}: {text}")
        sending = self._batcher.put(entry)
        return {"message": await self._connection.confirmed(context.deadline, sending)}

    async def check(self) -> str:
        """Find the target; sends nothing."""
        client = await self._connection.get()
        try:
            await client.call(self._target.find)
        except Exception as raised:  # noqa: BLE001 - botocore's errors have no common base
            error = _aws_error(raised)
            if _ACCESS_DENIED.search(error.code):
                return (
                    f"{self._label}: reading its attributes is not permitted; "
                    "the first event shows whether sending is"
                )
            raise self._retry(error) from None
        return f"{self._label}: it exists"

    async def close(self) -> None:
        await self._batcher.close()
        await self._connection.close()

    async def _connect(self) -> AwsClient:
        threads = ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="wavehook-aws")
        loop = asyncio.get_running_loop()
        try:
            client = await loop.run_in_executor(threads, _boto3_client, self._settings)
        except BaseException as error:
            threads.shutdown(wait=False)
            if isinstance(error, Exception):
                raise self._retry(_aws_error(error)) from None
            raise
        return AwsClient(client, threads)

    async def _send(self, entries: Sequence[BatchEntry]) -> list[str | Exception]:
        client = await self._connection.get()
        try:
            outcomes = await client.call(self._target.send, entries)
        except Exception as error:  # noqa: BLE001 - botocore's errors have no common base
            return [self._retry(_aws_error(error))] * len(entries)
        return [self._retry(one) if isinstance(one, AwsError) else one for one in outcomes]

    def _retry(self, error: AwsError) -> Retry:
        text = f"{self._label}: {' '.join(part for part in (error.code, error.text) if part)}"
        if _THROTTLED.search(error.code):
            return Retry(text, after=THROTTLED_PAUSE_S, pause=True)
        return Retry(text)


def create(name: str, settings: Mapping[str, Any]) -> AwsHandler:
    """Make the handler."""
    import boto3  # noqa: F401 - a missing extra shows at start

    return AwsHandler(read(AwsSettings, name, settings))


def _boto3_client(settings: AwsSettings) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    return Session(profile_name=settings.profile).client(
        settings.target.service,
        **settings.location,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S / 2,
            read_timeout=CONNECT_TIMEOUT_S,
            max_pool_connections=MAX_CONCURRENT_CALLS,
            # The dispatcher retries, not the client.
            retries={"total_max_attempts": 1},
        ),
    )


def _aws_error(error: Exception) -> AwsError:
    """The code and text of AWS, or the reason why AWS was not reached."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        details = error.response.get("Error", {})
        return AwsError(str(details.get("Code", "")), str(details.get("Message", "")))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        text = "there are no credentials; set `profile`, or AWS_ACCESS_KEY_ID and the rest"
        return AwsError("", text)
    if isinstance(error, exceptions.NoRegionError):
        return AwsError("", "there is no region; set `region` or AWS_REGION")
    if isinstance(error, exceptions.ProfileNotFound):
        return AwsError("", "there is no such `profile` in ~/.aws/config")
    if isinstance(error, exceptions.HTTPClientError | exceptions.EndpointConnectionError):
        return AwsError("", f"no connection, or it broke ({error})")
    return AwsError("", type(error).__name__)
