"""The `mqtt` handler's own: who subscribes, what is retained, versions, users and TLS."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.loading import load_section
from tests.support import needed
from tests.support.broker_processes import mosquitto
from tests.support.broker_queues import Mqtt
from tests.support.brokers import SECRET, data
from tests.support.certificates import certificate
from tests.support.handler_harness import Handler
from tests.support.proxy import proxy
from tests.support.servers import serving


@pytest.fixture
async def broker() -> AsyncIterator[Mqtt]:
    """A name to which nobody subscribes yet."""
    made = Mqtt()
    yield made
    await made.remove()


async def test_what_nobody_subscribes_to_is_not_done(broker: Mqtt) -> None:
    """The broker would drop it; who does not mind says so."""
    async with Handler("mqtt", broker.settings()) as handler:
        with pytest.raises(Retry, match=r"nobody subscribes to wh-.*/prediction/completed"):
            await handler()
    async with Handler("mqtt", broker.settings() | {"mandatory": False}) as handler:
        assert await handler() is None


async def test_what_is_retained_waits_for_who_subscribes(broker: Mqtt) -> None:
    """The last of each topic."""
    settings = broker.settings() | {"retain": True, "topic": broker.name + "/{subject}"}
    async with Handler("mqtt", settings) as handler:
        for context in ("one", "two"):
            await handler(context=context)
    await broker.make()
    events = await broker.read(1)
    assert all(message.retain for message in broker.messages)
    assert {data(event)["context"] for event in events} == {"two"}
    client = needed.module("paho.mqtt.publish")
    empty = {"hostname": "127.0.0.1", "port": broker.port, "retain": True}
    await asyncio.to_thread(client.single, f"{broker.name}/task-1", b"", **empty)


async def test_the_older_version_knows_no_properties(broker: Mqtt) -> None:
    """Who speaks MQTT 3.1.1 reads the CloudEvent from the body."""
    settings = broker.settings() | {"version": "3.1.1"}
    async with Handler("mqtt", settings) as handler:
        # Nor does it hear whether anybody subscribes.
        await handler()
        await broker.make()
        await handler("task-2")
    with pytest.raises(AttributeError):
        await broker.read(1)
    (message,) = broker.messages
    assert b'"id":"wavespeed:task-2:completed"' in message.payload


async def test_more_than_the_broker_takes_at_once_waits(tmp_path: Path) -> None:
    """A broker says how many may be on their way, and how large they may be."""
    limits = "allow_anonymous true\nmax_inflight_messages 3\nmax_packet_size 20000"
    process = mosquitto(tmp_path, limits)
    async with process:
        settings = {"url": f"mqtt://127.0.0.1:{process.port}", "mandatory": False}
        async with Handler("mqtt", settings) as handler:
            await asyncio.gather(*(handler(f"task-{number}") for number in range(30)))
            with pytest.raises(GiveUp, match="the broker takes 20000 bytes at most"):
                await handler(context="x" * 20_000)


async def test_who_waits_is_told_that_the_connection_ended(tmp_path: Path) -> None:
    """F21: by a broker that ends while it takes nothing, and by one that ends at the welcome."""
    process = mosquitto(tmp_path)
    async with process, proxy(f"tcp://127.0.0.1:{process.port}") as way:
        settings = {"url": way.url.replace("tcp:", "mqtt:"), "mandatory": False}
        async with Handler("mqtt", settings) as handler:
            await handler()
            way.silence()
            runs = [asyncio.ensure_future(handler(f"task-{number}")) for number in range(30)]
            await asyncio.wait(runs, timeout=0.05)
            way.cut()
            for run in runs:
                with pytest.raises(Retry, match="the connection broke"):
                    await run
            await handler("task-31")

    async def meet(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with serving(meet) as port, Handler("mqtt", {"url": f"mqtt://127.0.0.1:{port}"}) as one:
        with pytest.raises(Retry, match="the connection broke"):
            await one()


USERS = """
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/rights
cafile {cert}
certfile {cert}
keyfile {key}
require_certificate true
"""


async def test_a_broker_with_users_and_certificates(tmp_path: Path) -> None:
    """F16: by password and certificate we come in, and only where we may publish it is done."""
    needed.programs("mosquitto_passwd")
    cert, key = certificate(tmp_path)
    passwords = str(tmp_path / "passwords")
    command = ["mosquitto_passwd", "-c", "-b", passwords, "wave hook", f"{SECRET}/:@"]
    await asyncio.to_thread(subprocess.run, command, check=True)
    (tmp_path / "rights").write_text("user wave hook\ntopic write ok/#\n")
    process = mosquitto(tmp_path, USERS.format(folder=tmp_path, cert=cert, key=key))
    files = {"ca": str(cert), "cert": str(cert), "key": str(key), "mandatory": False}
    url = f"mqtts://wave%20hook:{SECRET}%2F%3A%40@127.0.0.1:{process.port}"
    async with process:
        async with Handler("mqtt", {"url": url, "topic": "ok/{type}", **files}) as good:
            await good()
        async with Handler("mqtt", {"url": url, "topic": "no/{type}", **files}) as barred:
            with pytest.raises(Retry, match=r"it refuses no/prediction/completed \(Not authorized"):
                await barred()
        async with Handler("mqtt", {"url": url.replace(SECRET, "wr0ng"), **files}) as unknown:
            with pytest.raises(Retry, match="it refuses the connection") as error:
                await unknown()
            assert "wr0ng" not in str(error.value)
        async with Handler("mqtt", {"url": url}) as untrusting:
            with pytest.raises(Retry, match="certificate verify failed"):
                await untrusting()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"mode": "binary", "version": "3.1.1"}, ': expected `version = "5"` beside `mode'),
        ({"ca": "/ca.pem"}, ": expected a `url` with mqtts:// beside `ca` or `cert`"),
        ({"topic": "a/#"}, ".topic: 'a/#', expected a topic such as wavehook/{type}"),
        ({"version": "4"}, ".version: '4', expected '5' or '3.1.1'"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], fault: str) -> None:
    """F16: told at the start, without the URL."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": "mqtt", "url": f"mqtt://u:{SECRET}@h", **settings})
    assert f"handlers.pipe{fault}" in str(error.value)
    assert SECRET not in str(error.value)
