"""Handlers of the receivers under test; each line that they write is whole, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal

from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import on

NOTES = "notes.jsonl"


def write(step: str, context: Context) -> int:
    """Append one line to the notes in the working directory; returns our process id."""
    line = {"key": context.key, "step": step, "attempt": context.attempt, "pid": os.getpid()}
    notes = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, json.dumps(line).encode() + b"\n")
    os.close(notes)
    return os.getpid()


@on("prediction.*", concurrency=32)
async def note(event: Event, context: Context) -> int:
    """Runs for every event."""
    return write("note", context)


@on("prediction.*", after="note", concurrency=32)
async def tell(event: Event, context: Context) -> int:
    """Runs for every event, after `note`."""
    return write("tell", context)


@on(models="test/slow")
async def slow(event: Event, context: Context) -> int:
    """Takes a while."""
    write("begin", context)
    await asyncio.sleep(0.5)
    return write("end", context)


@on(models="test/stuck", timeout=100)
async def stuck(event: Event, context: Context) -> None:
    """Takes longer than anybody waits."""
    write("begin", context)
    await asyncio.sleep(90)


@on(models="test/deadly")
async def deadly(event: Event, context: Context) -> int:
    """Is killed halfway the first time."""
    write("begin", context)
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return write("end", context)
