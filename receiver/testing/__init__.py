"""Test kit for authors of handlers; it works with any test framework.

`run_handler` runs a handler as the dispatcher does, without waiting between attempts; `event` and
`context` make its arguments; `hostile_events` are verified events with unexpected content;
`HandlerContract` tests what every handler must keep; `deliveries` makes signed webhooks.

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
