"""What is logged while a handler runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.testing import capture_logs

from receiver.telemetry.log import VERBOSE_LOGGERS


class _Lines(logging.Handler):
    """Keeps what is logged as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # As in a process of ours.
        if (
            record.name.partition(".")[0] not in VERBOSE_LOGGERS
            or record.levelno >= logging.WARNING
        ):
            self.lines.append(self.format(record))


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines of logging, at every level, and in the end those of structlog."""
    root, kept = logging.getLogger(), _Lines()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    try:
        with capture_logs() as told:
            yield kept.lines
    finally:
        root.removeHandler(kept)
        root.setLevel(level)
    kept.lines += [str(dict(each)) for each in told]
