"""What the author of a handler tests it with; it needs no test framework of its own.

from receiver.testing import event, run_handler

run = await run_handler(publish, event(outputs=["https://cdn.example/1.mp4"]))
assert run.state == "done"
assert [attempt.outcome for attempt in run.attempts] == ["retry", "done"]
"""

from __future__ import annotations

from receiver.testing import deliveries
from receiver.testing.contract import HandlerContract
from receiver.testing.events import Earlier, context, event
from receiver.testing.hostile import hostile_events
from receiver.testing.running import Run, run_handler

__all__ = [
    "Earlier",
    "HandlerContract",
    "Run",
    "context",
    "deliveries",
    "event",
    "hostile_events",
    "run_handler",
]
