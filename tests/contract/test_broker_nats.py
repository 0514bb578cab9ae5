"""The `nats` handler's own: streams, duplicates, refusals, users and TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.brokers.nats import DUPLICATE_WINDOW_S
from receiver.handlers.loading import load_section
from tests.support import needed
from tests.support.broker_processes import nats_server
from tests.support.broker_streams import Nats
from tests.support.brokers import SECRET
from tests.support.certificates import certificate
from tests.support.handler_harness import Handler


@pytest.fixture
async def broker() -> AsyncIterator[Nats]:
    """A name, and no stream yet."""
    made = Nats()
    yield made
    client = await needed.module("nats").connect(made.url)
    stream = client.jetstream()
    for info in await stream.streams_info():
        if info.config.name.startswith(made.name):
            await stream.delete_stream(info.config.name)
    await client.close()


async def test_no_stream_is_no_confirmation(broker: Nats) -> None:
    """The error says what to do, and so does `check`."""
    async with Handler("nats", broker.settings()) as handler:
        for trying in (handler, handler.check):
            with pytest.raises(Retry, match=f"no stream takes {broker.subject}; create one"):
                await trying()


async def test_a_stream_is_made_where_asked_for(broker: Nats) -> None:
    """It takes whatever the subject can be, and one that is there stays as it is."""
    settings = broker.settings() | {"stream": broker.name, "create_stream": True}
    async with Handler("nats", settings) as handler:
        for _ in range(2):
            assert "does not exist yet; the first event creates it" in await handler.check()
        assert await handler(type="a.b.c") == {
            "stream": broker.name,
            "seq": 1,
            "duplicate": False,
        }
    async with Handler("nats", settings | {"subject": f"{broker.name}.x"}) as handler:
        assert (await handler("task-2"))["seq"] == 2
        assert f"the stream {broker.name} takes {broker.name}.x" in await handler.check()
    client = await needed.module("nats").connect(broker.url)
    config = (await client.jetstream().stream_info(broker.name)).config
    await client.close()
    assert (config.subjects, config.duplicate_window) == ([f"{broker.name}.>"], DUPLICATE_WINDOW_S)


async def test_a_stream_that_cannot_be_made_is_told(broker: Nats) -> None:
    """Such as one whose subjects another has."""
    await broker.make()
    settings = broker.settings() | {"stream": f"{broker.name}-2", "create_stream": True}
    async with Handler("nats", settings) as handler:
        with pytest.raises(Retry, match=r"-2 cannot be created \(subjects overlap"):
            await handler()


async def test_a_duplicate_is_said_to_be_one(broker: Nats) -> None:
    """F25: the same dispatch; another handler's is another message."""
    await broker.make()
    async with (
        Handler("nats", broker.settings()) as one,
        Handler("nats", broker.settings(), "other") as other,
    ):
        came = [await handler() for handler in (one, one, other)]
    assert [(each["seq"], each["duplicate"]) for each in came] == [
        (1, False),
        (1, True),
        (2, False),
    ]


async def test_another_stream_is_refused(broker: Nats) -> None:
    """Where `stream` names one, no other's acknowledgement counts."""
    await broker.make()
    async with Handler("nats", broker.settings() | {"stream": "OTHER"}) as handler:
        with pytest.raises(Retry, match="expected stream does not match"):
            await handler()
        with pytest.raises(Retry, match=f"{broker.name} takes .*, not OTHER"):
            await handler.check()


async def test_a_full_stream_is_tried_again(broker: Nats) -> None:
    """F27: with the server's own words."""
    client = await needed.module("nats").connect(broker.url)
    await client.jetstream().add_stream(
        name=broker.name, subjects=[f"{broker.name}.>"], max_msgs=1, discard="new"
    )
    async with Handler("nats", broker.settings()) as handler:
        await handler()
        with pytest.raises(Retry, match=r"maximum messages exceeded \(10077\)"):
            await handler("task-2")
    await client.close()


async def test_what_is_too_large_is_given_up(broker: Nats) -> None:
    """F23: for the stream, or for the server."""
    client = await needed.module("nats").connect(broker.url)
    await client.jetstream().add_stream(
        name=broker.name, subjects=[f"{broker.name}.>"], max_msg_size=5000
    )
    await client.close()
    async with Handler("nats", broker.settings()) as handler:
        with pytest.raises(GiveUp, match="message size exceeds maximum allowed"):
            await handler(context="x" * 5000)
        with pytest.raises(GiveUp, match=r"\d{7} bytes are more than its max_payload"):
            await handler("task-2", context="x" * 2_000_000)


@pytest.mark.parametrize("answer", [b"ok", b"{}", b'{"stream": 5, "seq": 1}', b"[]"])
async def test_what_answers_has_to_be_a_stream(broker: Nats, answer: bytes) -> None:
    """Any service may listen on a subject; only a stream's word is a confirmation."""
    client = await needed.module("nats").connect(broker.url)

    async def reply(message: Any) -> None:
        await message.respond(answer)

    await client.subscribe(broker.subject, cb=reply)
    await client.flush()
    async with Handler("nats", broker.settings()) as handler:
        with pytest.raises(Retry, match=f"the answer on {broker.subject} is not from a stream"):
            await handler()
    await client.close()


USERS = """
authorization {{ users: [
  {{ user: wavehook, password: {secret}, permissions: {{ publish: ["wh.ok.>", "$JS.API.>"] }} }}
] }}
tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}
"""


async def test_a_server_with_users_and_certificates(tmp_path: Path) -> None:
    """F16: by password and certificate we come in, and only where we may publish it is done."""
    cert, key = certificate(tmp_path)
    process = nats_server(tmp_path, USERS.format(secret=SECRET, cert=cert, key=key))
    files = {"ca": str(cert), "cert": str(cert), "key": str(key)}
    url = f"tls://wavehook:{SECRET}@127.0.0.1:{process.port}"
    made = {"stream": "WH", "create_stream": True}
    async with process:
        async with Handler(
            "nats", {"url": url, "subject": "wh.ok.{type}", **made, **files}
        ) as good:
            assert (await good())["seq"] == 1
        async with Handler("nats", {"url": url, "subject": "wh.no.{type}", **files}) as barred:
            with pytest.raises(
                Retry, match=r"this user may not publish to wh\.no\.prediction\.completed"
            ):
                await barred()
        async with Handler("nats", {"url": url.replace(SECRET, "wr0ng"), **files}) as unknown:
            with pytest.raises(Retry, match="Authorization Violation") as error:
                await unknown()
            assert "wr0ng" not in str(error.value)
        async with Handler("nats", {"url": url}) as untrusting:
            with pytest.raises(Retry, match="certificate verify failed"):
                await untrusting()


async def test_of_a_cluster_one_is_enough(broker: Nats) -> None:
    """A list of servers, the first of which is away."""
    await broker.make()
    urls = ["nats://127.0.0.1:9", broker.url]
    async with Handler("nats", broker.settings() | {"url": urls}) as handler:
        assert (await handler())["seq"] == 1


async def test_without_jetstream_nothing_is_confirmed(tmp_path: Path) -> None:
    """A plain NATS server takes messages, and keeps none."""
    process = nats_server(tmp_path)
    configuration = tmp_path / "nats.conf"
    configuration.write_text(configuration.read_text().replace("jetstream", "#"))
    async with process, Handler("nats", {"url": f"nats://127.0.0.1:{process.port}"}) as handler:
        with pytest.raises(Retry, match="no stream takes"):
            await handler()
        with pytest.raises(Retry, match="JetStream does not answer"):
            await handler.check()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"create_stream": True}, ": expected `stream` beside `create_stream`"),
        (
            {"create_stream": True, "stream": "S", "subject": "{type}"},
            ": expected a `subject` that",
        ),
        ({"stream": "a b"}, ".stream: 'a b', expected"),
        ({"key": "/k.pem"}, ".key: '/k.pem', expected `cert` beside it"),
        ({"ca": "/no.pem"}, ".ca: '/no.pem', expected a file of certificates"),
        ({"cert": "/no.pem"}, ".cert: '/no.pem', expected a file with a certificate"),
        ({"subject": "a b"}, ".subject: 'a b', expected a subject such as wavehook.{type}"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], fault: str) -> None:
    """F16: told at the start, also where they fit each other badly, and without the URL."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": "nats", "url": f"nats://{SECRET}@h", **settings})
    assert f"handlers.pipe{fault}" in str(error.value)
    assert SECRET not in str(error.value)
