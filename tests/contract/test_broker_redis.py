"""The `redis` handler's own: fields, trimming, and what else may be in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Retry, SettingsError
from receiver.handlers.loading import load_section
from tests.support.broker_processes import redis_server
from tests.support.broker_streams import Redis
from tests.support.brokers import SECRET
from tests.support.certificates import certificate
from tests.support.handler_harness import Handler


@pytest.fixture
async def broker() -> AsyncIterator[Redis]:
    """A name that nobody has."""
    made = Redis()
    yield made
    await made.remove()


async def test_an_entry_has_plain_fields(broker: Redis) -> None:
    """Any consumer reads them; the result names the entry."""
    async with Handler("redis", broker.settings()) as handler:
        came = await handler()
    async with broker._client() as client:
        ((entry, fields),) = await client.xrange(broker.name)
    assert came == {"stream": broker.name, "entry": entry}
    assert set(fields) == {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data")
    }
    assert fields["type"] == "wavehook.prediction.completed"


async def test_older_entries_go(broker: Redis) -> None:
    """Redis trims by whole nodes of about a hundred entries."""
    async with Handler("redis", broker.settings() | {"maxlen": 100}) as handler:
        await asyncio.gather(*(handler(f"task-{number}") for number in range(500)))
        async with broker._client() as client:
            length = await client.xlen(broker.name)
        assert 100 <= length < 400
        assert await handler.check() == (
            f"Redis at 127.0.0.1:{broker.port}: the stream {broker.name} has {length} entries"
        )


async def test_something_else_under_its_name_is_told(broker: Redis) -> None:
    """By a run, and by `check`; the others of the same moment are done."""
    other = Redis()
    async with broker._client() as client:
        await client.set(f"{broker.name}-a", "x")
    settings = broker.settings() | {"stream": broker.name + "-{subject}"}
    async with Handler("redis", settings) as handler:
        came: tuple[Any, Any] = await asyncio.gather(
            handler("a"), handler("b"), return_exceptions=True
        )
    assert str(came[0]).endswith(f"{broker.name}-a is not a stream; name another one in `stream`")
    assert came[1]["stream"] == f"{broker.name}-b"
    async with Handler("redis", other.settings() | {"stream": f"{broker.name}-a"}) as handler:
        with pytest.raises(Retry, match="is a string, expected a stream or nothing"):
            await handler.check()
    async with broker._client() as client:
        await client.delete(f"{broker.name}-a", f"{broker.name}-b")


async def test_a_server_with_a_password_and_certificates(tmp_path: Path) -> None:
    """F16: by password and certificate we come in; who does not is told no secret."""
    cert, key = certificate(tmp_path)
    process = redis_server(tmp_path, "--requirepass", SECRET, "--maxmemory", "100mb")
    own = ["--tls-port", str(process.port), "--port", "0", "--tls-cert-file", str(cert)]
    process._arguments = [*process._arguments, *own]
    process._arguments += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    url = f"rediss://:{SECRET}@127.0.0.1:{process.port}/0"
    files = {"ca": str(cert), "cert": str(cert), "key": str(key)}
    async with process:
        async with Handler("redis", {"url": url, **files}) as handler:
            await handler()
            query = f"ssl_ca_certs={cert}&ssl_certfile={cert}&ssl_keyfile={key}"
            async with Redis(f"{url}?{query}")._client() as client:
                await client.config_set("maxmemory", "1")
            with pytest.raises(Retry, match="command not allowed when used memory"):
                await handler("task-2")
        async with Handler("redis", {"url": url.replace(SECRET, "wr0ng"), **files}) as handler:
            with pytest.raises(Retry, match="it refuses the user or password in `url`") as error:
                await handler()
        assert "wr0ng" not in str(error.value)
        async with Handler("redis", {"url": url}) as handler:
            with pytest.raises(Retry, match="certificate verify failed"):
                await handler()


async def test_a_socket_of_this_machine(tmp_path: Path) -> None:
    """Where Redis has no port at all."""
    socket = tmp_path / "redis.sock"
    process = redis_server(tmp_path, "--unixsocket", str(socket))
    async with process, Handler("redis", {"url": f"unix://{socket}"}) as handler:
        assert (await handler())["stream"] == "wavehook"
        assert await handler.check() == f"Redis at {socket}: the stream wavehook has 1 entries"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"maxlen": 0}, ".maxlen: 0, expected a number of at least 1"),
        ({"ca": "/ca.pem"}, ": expected a `url` with rediss:// beside `ca` or `cert`"),
        ({"stream": "a b"}, ".stream: 'a b', expected the name of a stream"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], fault: str) -> None:
    """F16: told at the start, without the URL."""
    with pytest.raises(SettingsError) as error:
        load_section("pipe", {"use": "redis", "url": f"redis://:{SECRET}@h", **settings})
    assert f"handlers.pipe{fault}" in str(error.value)
    assert SECRET not in str(error.value)
