"""The log: structlog, as JSON lines, or as text on a terminal.

Lines of the standard library's loggers, uvicorn's among them, get the same format. Tracebacks name
files, lines and classes, but neither locals nor an exception's text, which often quotes a request
or a prompt.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from receiver.strict_json import encoder
from receiver.telemetry import TelemetryEvent

MAX_TEXT_LENGTH = 2000
"""Characters of a line from another library's logger."""

_json_stream: TextIO | None = None
_lowest = logging.INFO
_MAX_FRAMES = 30
_MAX_CHAIN = 5


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"


_encode = encoder(_named)


VERBOSE_LOGGERS = (
    "aio_pika",
    "aiormq",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "urllib3",
)
"""Libraries that log whole URLs or bodies below the level `warning`."""


def configure(stream: TextIO | None = None, level: str = "info", json: bool | None = None) -> None:
    """Write every log line of this process to one stream, in one format.

    Args:
        stream: standard error by default, because standard output belongs to commands.
        level: the lowest level that is written: `debug`, `info`, `warning` or `error`.
        json: JSON lines or text; None chooses text if the stream is a terminal.
    """
    global _json_stream, _lowest
    stream = stream or sys.stderr
    lowest = logging.getLevelNamesMapping()[level.upper()]
    render = (
        _render_json if json or (json is None and not stream.isatty()) else _text_renderer(stream)
    )
    _json_stream, _lowest = stream if render is _render_json else None, lowest
    first: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _show_error,
    ]
    structlog.configure(
        processors=[*first, render],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *first, _bound],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(lowest)
    for name in ("uvicorn", "uvicorn.error"):
        _clear(name).propagate = True
    # Its lines contain whole URLs, tokens included; `request.served` has the rest.
    _clear("uvicorn.access").propagate = False
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(lowest, logging.WARNING))


def logger() -> FilteringBoundLogger:
    """A logger of the current configuration; callers that log often keep it."""
    return cast("FilteringBoundLogger", structlog.get_logger().bind())


class RequestLog:
    """Writer of `request.served`, the log line of every request.

    JSON lines bypass structlog's processors, and all lines of one turn of the event loop are
    written together at its end: saves 8 µs of the app's 59 µs a delivery
    (tests/bench/test_ack.py, the app alone).
    """

    def __init__(self) -> None:
        self._log = logger()
        self._stream = _json_stream
        self._lines: list[str] = []

    def __call__(self, level: int, fields: EventDict) -> None:
        """Write one line.

        Args:
            level: as in `logging`.
            fields: the fields of the line; the dict must not be used afterwards.
        """
        if self._stream is None:
            self._log.log(level, "request.served", **fields)
        elif level >= _lowest:
            if not self._lines:
                asyncio.get_running_loop().call_soon(self._write)
            fields["event"] = "request.served"
            fields["level"] = "info" if level == logging.INFO else "warning"
            fields["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            self._lines.append(_encode(fields).decode() + "\n")

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if self._stream is not None:
            self._stream.write("".join(lines))
            self._stream.flush()


def log_hook(event: TelemetryEvent) -> None:
    """Log a telemetry event, unless `request.served` has it already."""
    level = _LEVELS.get(event.name, logging.INFO)
    if event.name == "dispatch.settled":
        level = _OUTCOMES.get(event.outcome or "", logging.INFO)
    elif event.skew is not None:
        # One of the clocks is wrong, or somebody replays: a person should know.
        level = logging.WARNING
    if level == _NOT_LOGGED:
        return
    fields = {name: getattr(event, name) for name in _FIELDS}
    if event.seconds is not None:
        fields["seconds"] = round(event.seconds, 6)
    present = {name: value for name, value in fields.items() if value is not None}
    logger().log(level, event.name, **present)


def stack(error: BaseException) -> str:
    """Frames and class names of an exception and its causes; never its text or a local."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _MAX_CHAIN:
        frames = "".join(traceback.format_tb(cause.__traceback__, limit=-_MAX_FRAMES))
        inner = ""
        if isinstance(cause, BaseExceptionGroup):
            inner = f" of {', '.join(type(each).__qualname__ for each in cause.exceptions)}"
        parts.append(f"{frames}{type(cause).__qualname__}{inner}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nfrom\n".join(parts)


_NOT_LOGGED = -1
_FIELDS = TelemetryEvent._fields[1:]
_LEVELS = {
    "delivery.accepted": _NOT_LOGGED,
    "delivery.rejected": _NOT_LOGGED,
    "delivery.failed": _NOT_LOGGED,
    "dispatch.lost": logging.WARNING,
    "dispatcher.failed": logging.ERROR,
    "follower.failed": logging.ERROR,
    "handler.failed": logging.ERROR,
    "handler.paused": logging.WARNING,
    "prediction.contradicted": logging.WARNING,
    "reconcile.asked": logging.DEBUG,
    "reconcile.failed": logging.WARNING,
    "store.failed": logging.ERROR,
}
_OUTCOMES = {"retry": logging.WARNING, "dead": logging.ERROR}


def _clear(name: str) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.handlers.clear()
    return logger


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return _encode(event).decode()


def _show_error(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the frames of the exception."""
    found = event.pop("exc_info", None)
    if not found:
        return event
    error = found if isinstance(found, BaseException) else sys.exc_info()[1]
    if isinstance(found, tuple):
        error = found[1]
    if error is not None:
        event["error"] = type(error).__qualname__
        event["stack"] = stack(error)
    return event


def _bound(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["event"] = str(event["event"]).strip()[:MAX_TEXT_LENGTH]
    return event


def _text_renderer(stream: TextIO) -> Any:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )

    def render(wrapped: WrappedLogger, name: str, event: EventDict) -> str:
        shown = {key: _escaped(value, key) for key, value in event.items()}
        return str(console(wrapped, name, shown))

    return render


def _escaped(value: Any, key: str) -> Any:
    """Escape control characters, which could steer a terminal; a stack keeps its newlines."""
    if not isinstance(value, str) or value.isprintable():
        return value
    keep = "\n" if key == "stack" else ""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in value
    )
