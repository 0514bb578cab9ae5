"""The simulator over real HTTP, for as long as a block runs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import httpx

from submitter.api.transport import tls
from submitter.simulator import answers, media
from submitter.simulator.app import create_app
from submitter.simulator.attempt import Attempt
from submitter.simulator.book import KEPT, Book
from submitter.simulator.calls import Calls
from submitter.simulator.faults import Faults
from submitter.simulator.pace import Pace
from submitter.simulator.plan import Plan
from submitter.simulator.sender import AT_ONCE, TIMEOUT, Sender
from submitter.simulator.serving import serving
from submitter.simulator.tasks import Task
from submitter.simulator.timeline import Timeline
from submitter.simulator.uploads import Uploads
from submitter.simulator.world import World


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
        """How many calls came, by kind (`submitter.simulator.calls.Kind`)."""
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
