"""The simulator over real HTTP, for as long as a block runs.

An ASGI app over real HTTP for as long as a block runs, in the loop that is there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from submitter.api.transport import tls
from submitter.simulator import answers, media
from submitter.simulator.app import create_app
from submitter.simulator.clock import Pace, Timeline
from submitter.simulator.fault_responses import losable
from submitter.simulator.faults import Calls, Faults, Plan
from submitter.simulator.sender import AT_ONCE, TIMEOUT, Attempt, Sender
from submitter.simulator.state import World
from submitter.simulator.tasks import KEPT, Book, Task
from submitter.simulator.uploads import Uploads

ASGIApp = Any
"""uvicorn and Starlette type the same interface in two ways."""

TICK = 0.1
"""Seconds between uvicorn's own chores, such as the Date header."""

GRACE = 5
"""Seconds that requests get to end at the stop."""


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the loop, and stops when it is told, not at a next tick."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set_result(None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As upstream, without its fixed tenth of a second."""
        for listening in [*self.servers, *(sockets or ())]:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # Idle connections are gone after one turn of the loop; the others have requests.
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + GRACE
        while self.server_state.tasks and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self.server_state.tasks, timeout=TICK)
        late = list(self.server_state.tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self.lifespan.shutdown()

    async def main_loop(self) -> None:
        tick = 0
        while not await self.on_tick(tick):
            tick += 1
            await asyncio.wait((self._stopped,), timeout=TICK)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    lifespan: bool = False,
    protocol: type[asyncio.Protocol] = AutoHTTPProtocol,
) -> AsyncIterator[str]:
    """Serve an app; gives the URL where it is reached.

    Args:
        app: the ASGI app.
        host: where to listen.
        port: where to listen; 0 for a free one.
        lifespan: whether the app wants to be told of start and stop.
        protocol: uvicorn's over h11 or httptools; by default, the faster one that is installed.

    Raises:
        OSError: the port is taken, or the host is not ours.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=losable(protocol),
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        # The socket listens already; a request that comes before the server is up just waits.
        yield _url(listener)
    finally:
        server.stop()
        await running


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio does this for its own listeners only; without it, answers wait 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        # Nobody can connect to "any address"; this machine's own stands in for it.
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"


class Simulator:
    """A WaveSpeedAI look-alike with its webhook sender: `async with Simulator() as sim`.

    Args:
        host: where to listen.
        port: where to listen; 0 for a free one.
        speed: how many times faster than life.
        faults: what goes wrong on purpose.
        expire: seconds of life for which a task and its outputs are there after the task's end.
        secret: signs the webhooks; made up where there is none.
        api_key: the one that is accepted; None accepts any.
        clock: Unix seconds.

    Raises:
        OSError: the port is taken, or the host is not ours.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        faults: Faults | None = None,
        expire: float = KEPT,
        secret: str | None = None,
        api_key: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.secret = secret or make_secret()
        self.url = ""
        self._host, self._port, self._speed = host, port, speed
        self._expire = expire
        self._plan = Plan(faults or Faults())
        self._calls = Calls()
        self._api_key = api_key
        self._clock = clock
        self._world: World | None = None
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            # No proxy stands between the simulator and this machine.
            client = await exits.enter_async_context(
                httpx.AsyncClient(
                    timeout=TIMEOUT,
                    verify=tls(),
                    limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
                    trust_env=False,
                )
            )
            timeline = Timeline(self._speed)
            pace, plan = Pace(timeline, self._clock), self._plan
            sender = Sender(
                client,
                secret=self.secret,
                plan=plan,
                pace=pace,
                clock=self._clock,
                render=lambda task, now: answers.webhook(
                    task, now, self.url, lambda fault: plan.hits(fault, task.number)
                ),
            )
            world = World(
                book=Book(timeline, self._expire),
                sender=sender,
                plan=plan,
                pace=pace,
                clock=self._clock,
                secret=self.secret,
                api_key=self._api_key,
                calls=self._calls,
                uploads=Uploads(timeline),
            )
            exits.callback(world.uploads.close)
            app = create_app(world)
            self.url = await exits.enter_async_context(
                serving(app, host=self._host, port=self._port)
            )
            world.url = self.url
            exits.push_async_callback(sender.stop)
            exits.callback(pace.stop)
            self._world = world
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    @property
    def first_frame(self) -> str:
        """URL of a picture that the model takes."""
        return self.url + media.FIRST_FRAME

    @property
    def tasks(self) -> list[Task]:
        """Every task that was submitted and billed, in order."""
        return list(self._world.book.tasks.values()) if self._world else []

    @property
    def attempts(self) -> list[Attempt]:
        """Every attempt at a webhook, in order."""
        return list(self._world.sender.attempts) if self._world else []

    @property
    def calls(self) -> Mapping[str, int]:
        """How many calls came, by kind (`submitter.simulator.faults.Kind`)."""
        return self._calls.counts()

    @property
    def faults(self) -> Faults:
        """What goes wrong on purpose."""
        return self._plan.faults

    def set_faults(self, faults: Faults) -> None:
        """Replace what goes wrong; tasks and calls go on being numbered."""
        self._plan.faults = faults

    async def forward(self, seconds: float) -> None:
        """Let life jump ahead, and start what is due by it, such as webhooks.

        Args:
            seconds: of life.
        """
        if self._world is None:
            raise RuntimeError("use the simulator as `async with Simulator() as sim:`")
        self._world.pace.forward(seconds)
        await asyncio.sleep(0)


def make_secret() -> str:
    """A webhook secret as the vendor's look."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
