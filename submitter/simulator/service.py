"""The simulator as a running service: API, media files and webhooks over real HTTP."""

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

from submitter.api.transport import tls_context
from submitter.simulator import media, response_bodies
from submitter.simulator.api import SimState, create_app
from submitter.simulator.clock import SimClock, Timeline
from submitter.simulator.faults import CallCounter, FaultInjector, Faults
from submitter.simulator.server import serving
from submitter.simulator.tasks import API_RETENTION_S, Task, TaskStore
from submitter.simulator.uploads import UploadStore
from submitter.simulator.webhook_sender import (
    ATTEMPT_TIMEOUT_S,
    MAX_CONCURRENT_WEBHOOKS,
    WebhookAttempt,
    WebhookSender,
)


class Simulator:
    """Simulated WaveSpeedAI API with its webhook sender: `async with Simulator() as sim`.

    Args:
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        speed: simulated seconds per second.
        faults: faults to inject.
        expire: simulated seconds for which a finished task and its outputs are kept.
        secret: signs the webhooks; None makes a new one.
        api_key: the only accepted key; None accepts any.
        clock: Unix seconds.

    Raises:
        OSError: the port is taken, or the host is not an address of this machine.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        faults: Faults | None = None,
        expire: float = API_RETENTION_S,
        secret: str | None = None,
        api_key: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.secret = secret or make_secret()
        self.url = ""
        self._host, self._port, self._speed = host, port, speed
        self._expire = expire
        self._injector = FaultInjector(faults or Faults())
        self._calls = CallCounter()
        self._api_key = api_key
        self._clock = clock
        self._state: SimState | None = None
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            client = await exits.enter_async_context(
                httpx.AsyncClient(
                    timeout=ATTEMPT_TIMEOUT_S,
                    verify=tls_context(),
                    limits=httpx.Limits(
                        max_connections=MAX_CONCURRENT_WEBHOOKS,
                        max_keepalive_connections=MAX_CONCURRENT_WEBHOOKS,
                    ),
                    # No proxy of the environment between two ports of this machine.
                    trust_env=False,
                )
            )
            timeline = Timeline(self._speed)
            sim_clock, injector = SimClock(timeline, self._clock), self._injector
            sender = WebhookSender(
                client,
                secret=self.secret,
                injector=injector,
                sim_clock=sim_clock,
                clock=self._clock,
                render=lambda task, now: response_bodies.webhook(
                    task, now, self.url, lambda fault: injector.hits(fault, task.number)
                ),
            )
            state = SimState(
                tasks=TaskStore(timeline, self._expire),
                sender=sender,
                injector=injector,
                sim_clock=sim_clock,
                clock=self._clock,
                secret=self.secret,
                api_key=self._api_key,
                calls=self._calls,
                uploads=UploadStore(timeline),
            )
            exits.callback(state.uploads.close)
            self.url = await exits.enter_async_context(
                serving(create_app(state), host=self._host, port=self._port)
            )
            state.url = self.url
            exits.push_async_callback(sender.stop)
            exits.callback(sim_clock.stop)
            self._state = state
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
        """URL of a picture that the models accept."""
        return self.url + media.FIRST_FRAME_PATH

    @property
    def tasks(self) -> list[Task]:
        """Every task that was submitted and billed, in order."""
        return list(self._state.tasks.submitted.values()) if self._state else []

    @property
    def attempts(self) -> list[WebhookAttempt]:
        """Every delivery attempt of a webhook, in order."""
        return list(self._state.sender.attempts) if self._state else []

    @property
    def calls(self) -> Mapping[str, int]:
        """Number of API calls by kind (`submitter.simulator.faults.CallKind`)."""
        return self._calls.counts()

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._injector.faults

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults; the numbering of tasks and calls goes on."""
        self._injector.faults = faults

    async def forward(self, seconds: float) -> None:
        """Move simulated time forward, and start what is due then, such as webhooks.

        Args:
            seconds: simulated seconds.
        """
        if self._state is None:
            raise RuntimeError("use the simulator as `async with Simulator() as sim:`")
        self._state.sim_clock.forward(seconds)
        await asyncio.sleep(0)


def make_secret() -> str:
    """A random webhook secret in the vendor's format."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
