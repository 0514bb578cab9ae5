"""What SQS, SNS and EventBridge each want of a message, and say of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from receiver.event import Event
from receiver.handlers.cloudevent import PREFIX, Message
from receiver.handlers.envelope import happened_at, instant, visible


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
