"""The demo's handler against the simulator."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from receiver.demo.story import FAIL_FIRST, RUNS, publish
from receiver.event import Event
from receiver.handlers.base import Context
from submitter.simulator import Simulator

ONE = "a" * 32


def event(context: object, **body: object) -> Event:
    whole = {"id": ONE, "status": "completed", **body}
    return Event(
        id=f"wavespeed:{ONE}:completed",
        source="wavespeed",
        type="prediction.completed",
        context=context,  # type: ignore[arg-type]
        body=json.dumps(whole).encode(),
    )


def at(attempt: int) -> Context:
    return Context(key="k", handler="publish", attempt=attempt, deadline=0)


async def test_the_handler_fetches_the_video_and_counts_it() -> None:
    """Its result names the task of the context; the tally has task and key."""
    runs = Counter[tuple[str, str]]()
    token = RUNS.set(runs)
    try:
        async with Simulator() as sim:
            result = await publish(event({"task": 3}, outputs=[sim.first_frame]), at(1))
            expected = {"task": 3, "video": sim.first_frame, "bytes": 2183}
            with pytest.raises(ConnectionError):
                await publish(event({FAIL_FIRST: True}, outputs=[sim.first_frame]), at(1))
    finally:
        RUNS.reset(token)
    assert result == expected
    assert runs == {(ONE, "k"): 1}
