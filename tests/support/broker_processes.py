"""Brokers of a test's own: on a free port, in a folder of their own, stopped and started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support import needed
from tests.support.brokers import PATIENCE
from tests.support.servers import free_port


class Process:
    """A broker's process, which keeps its data over a stop.

    Args:
        arguments: the program and its arguments.
        port: where it listens.
        environ: beside ours.
    """

    def __init__(
        self, arguments: Sequence[str], port: int, environ: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = arguments
        self._environ = {**os.environ, **(environ or {})}
        self._process: asyncio.subprocess.Process | None = None
        self.port = port

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            env=self._environ,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # What it starts is ended with it.
            start_new_session=True,
        )
        async with asyncio.timeout(3 * PATIENCE):
            while True:
                assert self._process.returncode is None, f"{self._arguments[0]} has ended"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it by a signal, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            async with asyncio.timeout(PATIENCE):
                await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(signal.SIGKILL)


def nats_server(folder: Path, lines: str = "") -> Process:
    """NATS with JetStream; `lines` go into its configuration."""
    needed.programs("nats-server")
    port = free_port()
    configuration = folder / "nats.conf"
    configuration.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "jetstream"}" }}\n{lines}'
    )
    return Process(["nats-server", "-c", str(configuration)], port)


def redis_server(folder: Path, *options: str) -> Process:
    """Redis that writes what it has to a file."""
    needed.programs("redis-server")
    port = free_port()
    listen = ["--bind", "127.0.0.1", "--port", str(port)]
    keep = ["--dir", str(folder), "--appendonly", "yes", "--save", ""]
    return Process(["redis-server", *listen, *keep, *options], port)


def mosquitto(folder: Path, lines: str = "") -> Process:
    """Mosquitto that keeps sessions over a stop; `lines` go into its configuration."""
    needed.programs("mosquitto")
    port = free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
        f"max_queued_messages 0\n{lines or 'allow_anonymous true'}\n"
    )
    # As root it would give up its rights, and with them this folder.
    configuration.write_text(f"user root\n{configuration.read_text()}")
    return Process(["mosquitto", "-c", str(configuration)], port)


def rabbitmq_server(folder: Path) -> Process:
    """A node of RabbitMQ; it takes some seconds to start."""
    server = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    needed.programs(server)
    port = free_port()
    environ = {
        "RABBITMQ_NODENAME": f"wh{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none-either"),
        "HOME": str(folder),
    }
    return Process([server], port, environ)
