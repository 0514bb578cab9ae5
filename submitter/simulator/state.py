"""What the routes act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from submitter.prediction import JSON
from submitter.simulator.clock import Pace
from submitter.simulator.faults import Calls, Plan
from submitter.simulator.sender import Sender
from submitter.simulator.tasks import Book
from submitter.simulator.uploads import Uploads

PRICE = 0.25
"""USD for 5 seconds of video."""

BALANCE = 100.0
"""USD at the start; nothing is refused when they are gone."""


@dataclass(slots=True)
class World:
    """The simulator's parts.

    Attributes:
        book: the tasks.
        sender: delivers their webhooks.
        plan: spoils calls and answers.
        pace: of life.
        clock: Unix seconds.
        secret: of the webhooks.
        api_key: the one that is accepted; None accepts any.
        url: where the simulator is reached.
        calls: counts them.
        uploads: the files.
    """

    book: Book
    sender: Sender
    plan: Plan
    pace: Pace
    clock: Callable[[], float]
    secret: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    url: str = ""
    calls: Calls = field(default_factory=Calls)
    uploads: Uploads = field(default_factory=Uploads)


def seconds(input: Mapping[str, JSON]) -> int:
    """The length of the video that was asked for."""
    asked = input.get("duration")
    return asked if isinstance(asked, int) and asked > 0 else 5


def price(input: Mapping[str, JSON]) -> float:
    """USD for a task."""
    return PRICE * seconds(input) / 5
