"""State shared by the simulator's endpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from submitter.simulator.clock import SimClock
from submitter.simulator.faults import CallCounter, FaultInjector
from submitter.simulator.tasks import TaskStore
from submitter.simulator.uploads import UploadStore
from submitter.simulator.webhook_sender import WebhookSender


@dataclass(slots=True)
class SimState:
    """Parts of one simulator.

    Attributes:
        tasks: submitted tasks.
        sender: delivers their webhooks.
        injector: decides on faults.
        sim_clock: sleeps in simulated time.
        clock: Unix seconds.
        secret: signs the webhooks.
        api_key: the only accepted key; None accepts any.
        url: base URL of the simulator.
        calls: counts API calls.
        uploads: uploaded files.
    """

    tasks: TaskStore
    sender: WebhookSender
    injector: FaultInjector
    sim_clock: SimClock
    clock: Callable[[], float]
    secret: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    url: str = ""
    calls: CallCounter = field(default_factory=CallCounter)
    uploads: UploadStore = field(default_factory=UploadStore)
