"""`log`: one JSON line an event, to standard output or a file.

    [handlers.log]
    use = "log"
    to = "events.jsonl"     # standard output unless given; `-` says so too
    outputs = true          # also the URLs of the results

Prompts, inputs, contexts and bodies are not in it. The file is opened for each line, so that it
can be rotated by moving it away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from receiver.errors import SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.envelope import line, moment
from receiver.handlers.settings import read
from submitter.prediction import JSON

_STDOUT = 1


class Settings(BaseModel):
    """The handler's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str = Field(default="-", min_length=1)
    outputs: bool = False


class Log:
    """Writes lines, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._path = None if settings.to == "-" else settings.to
        self._outputs = settings.outputs
        self._writing = asyncio.Lock()

    async def __call__(self, event: Event, context: Context) -> None:
        """Write the event's line; it is with the operating system when this returns."""
        data = line(_record(event, context, self._outputs)) + b"\n"
        async with self._writing:
            # A disk or a pipe may make us wait; the event loop must not.
            await asyncio.to_thread(self._write, data)

    async def check(self) -> str:
        """Open the file."""
        if self._path is None:
            return "writes to standard output"
        os.close(await asyncio.to_thread(_open, self._path))
        return f"{self._path} can be written"

    def _write(self, data: bytes) -> None:
        if self._path is None:
            _write_all(_STDOUT, data)
            return
        file = _open(self._path)
        try:
            _write_all(file, data)
        finally:
            os.close(file)


def create(name: str, settings: Mapping[str, Any]) -> Log:
    """Make the handler; the file is made at once, so that a fault shows at start.

    Raises:
        SettingsError: with all faults.
    """
    chosen = read(Settings, name, settings)
    if chosen.to != "-":
        try:
            os.close(_open(chosen.to))
        # ValueError: a NUL in the path.
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no path"
            raise SettingsError(
                [f"handlers.{name}.to: {settings['to']!r}, expected a writable file ({reason})"]
            ) from None
    return Log(chosen)


def _record(event: Event, context: Context, outputs: bool) -> dict[str, JSON]:
    urls = event.prediction.outputs if event.prediction else ()
    record: dict[str, JSON] = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "model": event.model,
        "outputs": len(urls),
        "received_at": moment(event.received_at),
        "key": context.key,
        "attempt": context.attempt,
    }
    if outputs:
        record["output_urls"] = list(urls)
    return record


def _open(path: str) -> int:
    # Windows would write another line's end.
    as_it_is = getattr(os, "O_BINARY", 0)
    return os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | as_it_is, 0o600)


def _write_all(file: int, data: bytes) -> None:
    """One write a line, unless the system takes only a part of it."""
    while data:
        data = data[os.write(file, data) :]
