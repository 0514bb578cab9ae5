"""The `aws` handler's own: SQS, SNS and EventBridge on moto's server.

What moto does not answer, such as throttling and calls that went well in part, a local HTTP server
answers as AWS documents it; so does the rest of what AWS may say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.brokers.aws import MAX_CALL_BYTES, AwsSettings
from receiver.handlers.loading import load_section
from tests.support.broker_queues import Sqs, amazon
from tests.support.brokers import SECRET
from tests.support.handler_harness import Handler
from tests.support.servers import serving

REGION = "eu-west-1"
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """What stands for AWS."""
    with amazon() as found:
        yield found


@pytest.fixture(params=[False, True], ids=["standard", "fifo"])
async def queue(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Sqs]:
    """A queue."""
    made = Sqs(url, fifo=request.param)
    await made.make()
    yield made
    await made.remove()


def arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


async def test_a_fifo_queue_knows_a_dispatch_again(queue: Sqs) -> None:
    """F25: the group is the task, and what came twice is there once; others keep both."""
    async with Handler("aws", queue.settings()) as handler:
        came = [await handler() for _ in range(2)]
        await asyncio.gather(handler("task-2"), handler("task-2"))
    events = await queue.read(2 if queue.fifo else 4)
    assert sorted(event.get_subject() or "" for event in events) == (
        ["task-1", "task-2"] if queue.fifo else ["task-1"] * 2 + ["task-2"] * 2
    )
    assert came[0]["message"] in [message["MessageId"] for message in queue.messages]
    groups = {message["Attributes"].get("MessageGroupId") for message in queue.messages}
    assert groups == ({"task-1", "task-2"} if queue.fifo else {None})


async def test_a_topic_gives_it_on(queue: Sqs) -> None:
    """SNS, read through a queue that subscribes to the topic."""
    attributes = {"FifoTopic": "true"} if queue.fifo else {}
    made = await queue.ask("sns", "create_topic", Name=queue.name, Attributes=attributes)
    await queue.ask(
        "sns",
        "subscribe",
        TopicArn=made["TopicArn"],
        Protocol="sqs",
        Endpoint=arn("sqs", queue.name),
        Attributes={"RawMessageDelivery": "true"},
    )
    mode = "binary" if queue.fifo else "structured"
    settings = queue.settings() | {"to": made["TopicArn"], "mode": mode}
    async with Handler("aws", settings) as handler:
        assert await handler.check() == f"SNS topic {queue.name}: it exists"
        await asyncio.gather(*(handler(f"task-{number}") for number in range(12)))
    events = await queue.read(12)
    assert {event.get_id() for event in events} == {
        f"wavespeed:task-{number}:completed" for number in range(12)
    }


async def test_a_bus_gives_it_on(url: str) -> None:
    """EventBridge, read through a queue that is a rule's target."""
    queue = Sqs(url)
    await queue.make()
    bus = (await queue.ask("events", "create_event_bus", Name=queue.name))["EventBusArn"]
    rule = {"Name": queue.name, "EventBusName": queue.name}
    pattern = json.dumps({"detail-type": ["wavehook.prediction.completed"]})
    await queue.ask("events", "put_rule", **rule, EventPattern=pattern)
    target = {"Id": "1", "Arn": arn("sqs", queue.name)}
    await queue.ask(
        "events", "put_targets", Rule=queue.name, EventBusName=queue.name, Targets=[target]
    )
    async with Handler("aws", queue.settings() | {"to": bus}) as handler:
        assert await handler.check() == f"EventBridge bus {queue.name}: it exists"
        await asyncio.gather(*(handler(f"task-{number}") for number in range(12)))
    while await queue.take():
        pass
    found = [json.loads(message["Body"]) for message in queue.messages]
    assert {each["source"] for each in found} == {"wavehook.wavespeed"}
    assert {each["time"] for each in found} == {"2027-01-15T07:59:57Z"}
    assert {each["detail"]["id"] for each in found} == {
        f"wavespeed:task-{number}:completed" for number in range(12)
    }
    await queue.remove()


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (f"http://127.0.0.1:1/{ACCOUNT}/none", "SQS queue none: .*queue does not exist"),
        (arn("sns", "none"), "SNS topic none: NotFound Topic does not exist"),
        (arn("events", "event-bus/none"), "EventBridge bus none: .* Event bus none does not exist"),
    ],
)
async def test_what_is_not_there_is_told(url: str, to: str, words: str) -> None:
    """The same by a run and by `check`."""
    async with Handler("aws", {"to": to, "endpoint": url, "region": REGION}) as handler:
        for trying in (handler, handler.check):
            with pytest.raises(Retry, match=words):
                await trying()


async def test_what_is_too_large_is_given_up(url: str) -> None:
    """F23: it is not even sent."""
    to = f"{url}/{ACCOUNT}/none"
    async with Handler("aws", {"to": to, "region": REGION}) as handler:
        with pytest.raises(GiveUp, match=rf"\d+ bytes are more than the {MAX_CALL_BYTES} it takes"):
            await handler(context="x" * MAX_CALL_BYTES)


async def test_large_ones_go_in_calls_of_their_own(queue: Sqs) -> None:
    """A call has a limit too."""
    async with Handler("aws", queue.settings()) as handler:
        await asyncio.gather(*(handler(f"t{n}", context="x" * 100_000) for n in range(6)))
    assert len(await queue.read(6)) == 6


@asynccontextmanager
async def answering(*answers: tuple[int, Any]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A stand-in for AWS that gives these answers in turn; and what it was asked."""
    asked: list[Any] = []
    left = list(answers)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r")[0])
            asked.append(json.loads(await reader.readexactly(size)))
            status, answer = left.pop(0)
            body = json.dumps(answer).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-type: application/x-amz-json-1.0\r\n"
                b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
            )

    async with serving(meet) as port:
        yield f"http://127.0.0.1:{port}", asked


@pytest.mark.usefixtures("url")
async def test_of_a_bus_each_entry_has_its_own_answer() -> None:
    """F27: a call that went well may hold some that did not; only those are sent again."""
    entries = [
        {"EventId": "e-1"},
        {"ErrorCode": "ThrottlingException", "ErrorMessage": "Rate exceeded"},
        {"ErrorCode": "InternalFailure", "ErrorMessage": "Try later"},
    ]
    async with answering((200, {"FailedEntryCount": 2, "Entries": entries})) as (endpoint, asked):
        settings = {"to": arn("events", "event-bus/b"), "endpoint": endpoint}
        async with Handler("aws", settings) as handler:
            came = await asyncio.gather(*map(handler, "abc"), return_exceptions=True)
    assert len(asked) == 1
    assert came[0] == {"message": "e-1"}
    _paused(came[1], "EventBridge bus b: ThrottlingException Rate exceeded")
    assert isinstance(came[2], Retry)
    assert (str(came[2]), came[2].pause) == ("EventBridge bus b: InternalFailure Try later", False)


@pytest.mark.usefixtures("url")
async def test_of_a_queue_each_entry_has_its_own_answer() -> None:
    """One that the answer does not name was not confirmed."""
    failed = [{"Id": "1", "Code": "InternalError", "SenderFault": False}]
    answer = {"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": ""}]}
    async with answering((200, {**answer, "Failed": failed})) as (endpoint, asked):
        settings = {"to": f"{endpoint}/{ACCOUNT}/q", "region": REGION}
        async with Handler("aws", settings) as handler:
            came = await asyncio.gather(*map(handler, "abc"), return_exceptions=True)
    assert [entry["Id"] for entry in asked[0]["Entries"]] == ["0", "1", "2"]
    assert came[0] == {"message": "m"}
    assert str(came[1]) == "SQS queue q: InternalError"
    assert str(came[2]) == "SQS queue q: the answer does not say what became of it"


def _paused(error: object, text: str) -> None:
    assert isinstance(error, Retry)
    assert (str(error), error.after, error.pause) == (text, 1.0, True)


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("code", ["ThrottlingException", "RequestThrottled", "TooManyRequests"])
async def test_too_much_pauses_the_handler(code: str) -> None:
    """F27: all of its events wait, and boto3 does not try again by itself."""
    refusal = {"__type": f"com.amazonaws.sqs#{code}", "message": "Slow down"}
    async with answering((400, refusal)) as (endpoint, asked):
        settings = {"to": f"{endpoint}/{ACCOUNT}/q", "region": REGION}
        async with Handler("aws", settings) as handler:
            with pytest.raises(Retry) as error:
                await handler()
    _paused(error.value, f"SQS queue q: {code} Slow down")
    assert len(asked) == 1


@pytest.mark.usefixtures("url")
async def test_who_may_only_send_is_not_wrong() -> None:
    """Rights to send do not bring rights to look."""
    refusal = {"__type": "AccessDeniedException", "message": "not authorized"}
    async with answering((400, refusal)) as (endpoint, _):
        settings = {"to": arn("events", "event-bus/b"), "endpoint": endpoint}
        async with Handler("aws", settings) as handler:
            assert (
                "reading its attributes is not permitted; the first event" in await handler.check()
            )


@pytest.mark.parametrize(
    ("settings", "without", "words"),
    [
        ({}, "AWS_ACCESS_KEY_ID", "there are no credentials; set `profile`, or AWS_ACCESS_KEY_ID"),
        ({}, "AWS_SECRET_ACCESS_KEY", "there are no credentials"),
        ({}, "AWS_DEFAULT_REGION", "there is no region; set `region` or AWS_REGION"),
        ({"profile": "nobody"}, "", "there is no such `profile`"),
        ({"endpoint": "http://a..b"}, "", "ValueError|no connection"),
    ],
)
async def test_what_is_missing_on_our_side_is_told(
    url: str, settings: dict[str, Any], without: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: and no key is shown."""
    for name in ("AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    if without:
        monkeypatch.delenv(without)
    async with Handler("aws", {"to": f"{url}/{ACCOUNT}/q", **settings}) as handler:
        with pytest.raises(Retry, match=words) as error:
            await handler.check()
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("to", "place"),
    [
        (f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/q", (REGION, None)),
        (f"https://sqs.cn-north-1.amazonaws.com.cn/{ACCOUNT}/q", ("cn-north-1", None)),
        (f"http://127.0.0.1:4566/{ACCOUNT}/q", (None, "http://127.0.0.1:4566")),
        (f"arn:aws-cn:sns:cn-north-1:{ACCOUNT}:t", ("cn-north-1", None)),
        (f"arn:aws:events:eu-west-1:{ACCOUNT}:event-bus/b", (REGION, None)),
    ],
)
def test_where_it_is_stands_in_its_name(to: str, place: tuple[str | None, str | None]) -> None:
    """So neither region nor endpoint has to be set."""
    found = AwsSettings(to=to).location
    assert (found["region_name"], found["endpoint_url"]) == place


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"to": arn("s3", "bucket")}, ".to: 'arn:aws:s3:eu-west-1:123456789012:bucket', expected"),
        ({"to": f"https://u:{SECRET}@h/q"}, ".to:"),
        ({"to": arn("events", "b"), "mode": "binary"}, ': expected `mode = "structured"` for'),
        ({"to": arn("sns", "t"), "endpoint": "h:80"}, ".endpoint: 'h:80', expected"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], fault: str) -> None:
    """Told at the start."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": "aws", **settings})
    assert f"handlers.pipe{fault}" in str(error.value)
