"""The simulator over real HTTP, for as long as a block runs."""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from submitter.simulator import answers, media
from submitter.simulator.app import World, create_app
from submitter.simulator.faults import Faults
from submitter.simulator.pace import Pace
from submitter.simulator.sender import TIMEOUT, Attempt, Sender
from submitter.simulator.serving import serving
from submitter.simulator.tasks import Book, Task


class Simulator:
    """A WaveSpeedAI look-alike with its webhook sender: `async with Simulator() as sim`.

    Args:
        host: where to listen.
        port: where to listen; 0 for a free one.
        speed: how many times faster than life.
        faults: what goes wrong on purpose.
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
        secret: str | None = None,
        api_key: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.secret = secret or make_secret()
        self.url = ""
        self._host, self._port, self._speed = host, port, speed
        self._faults = faults or Faults()
        self._api_key = api_key
        self._clock = clock
        self._world: World | None = None
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            # No proxy stands between the simulator and this machine.
            client = await exits.enter_async_context(
                httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)
            )
            pace = Pace(self._speed)
            sender = Sender(
                client,
                secret=self.secret,
                faults=self._faults,
                pace=pace,
                clock=self._clock,
                render=lambda task, now: answers.webhook(task, now, self.url),
            )
            world = World(
                book=Book(self._speed),
                sender=sender,
                faults=self._faults,
                pace=pace,
                clock=self._clock,
                secret=self.secret,
                api_key=self._api_key,
            )
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


def make_secret() -> str:
    """A webhook secret as the vendor's look."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
