"""`log`: writes one JSON line per event to standard output or a file.

    [handlers.log]
    use = "log"
    to = "events.jsonl"     # a file, or `-` for standard output; default `-`
    outputs = false         # true: the line contains the URLs of the results; default false

The line has the event's ids, type, source, model, number of outputs, time of receipt, idempotency
key and attempt; never a prompt, input, context or body. The file is opened for each line, so that
it can be rotated by moving it away.

Done: the operating system has taken the line. There is no result. Retried: any error of writing.
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
from receiver.handlers.envelope import encode_line
from receiver.handlers.settings import read
from submitter.prediction import JSON
from submitter.timestamps import rfc3339_clamped

_STDOUT = 1


class LogSettings(BaseModel):
    """The settings of the handler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str = Field(default="-", min_length=1)
    outputs: bool = False


class LogHandler:
    """Appends lines to one file, one at a time."""

    def __init__(self, settings: LogSettings) -> None:
        self._path = None if settings.to == "-" else settings.to
        self._outputs = settings.outputs
        self._lock = asyncio.Lock()

    async def __call__(self, event: Event, context: Context) -> None:
        """Write the event's line."""
        data = encode_line(_record(event, context, self._outputs)) + b"\n"
        async with self._lock:
            # A write to a slow disk or a full pipe blocks.
            await asyncio.to_thread(self._write, data)

    async def check(self) -> str:
        """Open the file for writing; writes nothing."""
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


def create(name: str, settings: Mapping[str, Any]) -> LogHandler:
    """Make the handler, and create the file, so that a fault shows at start."""
    chosen = read(LogSettings, name, settings)
    if chosen.to != "-":
        try:
            os.close(_open(chosen.to))
        # ValueError: a NUL in the path.
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise SettingsError(
                [f"handlers.{name}.to: {settings['to']!r}, expected a writable file ({reason})"]
            ) from None
    return LogHandler(chosen)


def _record(event: Event, context: Context, outputs: bool) -> dict[str, JSON]:
    urls = event.prediction.outputs if event.prediction else ()
    record: dict[str, JSON] = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "model": event.model,
        "outputs": len(urls),
        "received_at": rfc3339_clamped(event.received_at),
        "key": context.key,
        "attempt": context.attempt,
    }
    if outputs:
        record["output_urls"] = list(urls)
    return record


def _open(path: str) -> int:
    # Without it, Windows would translate the end of the line.
    binary = getattr(os, "O_BINARY", 0)
    return os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o600)


def _write_all(file: int, data: bytes) -> None:
    """Write everything: one call can write only a part."""
    while data:
        data = data[os.write(file, data) :]
