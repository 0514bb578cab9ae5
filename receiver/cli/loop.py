"""The event loop of a command that runs for long, and how often it stops to look for cycles."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GC_OBJECTS = 20_000
"""New containers between two looks for cycles."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, on uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def collect_rarely() -> None:
    """Tell the collector that all is made, and what comes now leaves no cycles behind.

    So what is there need not be looked at again, and looking every 700 objects, as is the default,
    would find nothing either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 20)
