"""The log: structlog, JSON lines unless somebody watches, one format for all that is logged.

Lines of the standard library's loggers, uvicorn's among them, take the same form. Tracebacks name
files, lines and classes, but show neither locals nor the text of an exception: that text often
quotes what a stranger sent, or a prompt (F16).
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

MAX_TEXT = 2000
"""Characters of one logged text that did not pass through our own bounds (F17)."""

_json_stream: TextIO | None = None
_lowest = logging.INFO
_FRAMES = 30
_CHAIN = 5


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"


_encode = encoder(_named)


TALKATIVE = (
    "aio_pika",
    "aiormq",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "urllib3",
)
"""Libraries that log whole URLs or bodies below warning (F16)."""


def configure(stream: TextIO | None = None, level: str = "info", json: bool | None = None) -> None:
    """Send every log line of this process to one stream, in one format.

    Args:
        stream: where to; standard error by default, because standard output belongs to commands.
        level: the lowest level that is written: `debug`, `info`, `warning` or `error`.
        json: JSON lines, or text for a person; None looks whether the stream is a terminal.
    """
    global _json_stream, _lowest
    stream = stream or sys.stderr
    lowest = logging.getLevelNamesMapping()[level.upper()]
    render = (
        _render_json if json or (json is None and not stream.isatty()) else _for_a_person(stream)
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
    # Its lines hold whole URLs, and with them tokens; `request.served` says the rest.
    _clear("uvicorn.access").propagate = False
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(lowest, logging.WARNING))


def logger() -> FilteringBoundLogger:
    """A logger made from today's configuration; to be kept by whoever logs often."""
    return cast("FilteringBoundLogger", structlog.get_logger().bind())


class RequestLog:
    """Writes `request.served`, the one line that every request costs.

    As JSON lines it goes past structlog's chain of processors, which costs more than verifying
    the delivery, and what one turn of the event loop has to say is written at its end, at once.
    """

    def __init__(self) -> None:
        self._log = logger()
        self._stream = _json_stream
        self._lines: list[str] = []

    def __call__(self, level: int, fields: EventDict) -> None:
        """Write one line.

        Args:
            level: as in `logging`.
            fields: of the line; becomes its own.
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


def log_hook(details: TelemetryEvent) -> None:
    """Write what happened, save what the line of the delivery's own request says already."""
    level = _LEVELS.get(details.name, logging.INFO)
    if details.name == "dispatch.settled":
        level = _OUTCOMES.get(details.outcome or "", logging.INFO)
    elif details.skew is not None:
        # The sender's clock or ours is wrong, or somebody replays: a person wants to know (F6).
        level = logging.WARNING
    if level == _UNTOLD:
        return
    fields = {name: getattr(details, name) for name in _FIELDS}
    if details.seconds is not None:
        fields["seconds"] = round(details.seconds, 6)
    told = {name: value for name, value in fields.items() if value is not None}
    logger().log(level, details.name, **told)


def stack(error: BaseException) -> str:
    """Where an exception came from: frames and class names, never its text or a local."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _CHAIN:
        frames = "".join(traceback.format_tb(cause.__traceback__, limit=-_FRAMES))
        inner = ""
        if isinstance(cause, BaseExceptionGroup):
            inner = f" of {', '.join(type(each).__qualname__ for each in cause.exceptions)}"
        parts.append(f"{frames}{type(cause).__qualname__}{inner}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nfrom\n".join(parts)


_UNTOLD = -1
_FIELDS = TelemetryEvent._fields[1:]
_LEVELS = {
    "delivery.accepted": _UNTOLD,
    "delivery.rejected": _UNTOLD,
    "delivery.failed": _UNTOLD,
    "dispatch.started": logging.DEBUG,
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
    """Replace `exc_info` by the frames."""
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
    event["event"] = str(event["event"]).strip()[:MAX_TEXT]
    return event


def _for_a_person(stream: TextIO) -> Any:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )

    def render(wrapped: WrappedLogger, name: str, event: EventDict) -> str:
        shown = {key: _escaped(value, key) for key, value in event.items()}
        return str(console(wrapped, name, shown))

    return render


def _escaped(value: Any, key: str) -> Any:
    """Text that cannot steer a terminal; only a stack keeps its lines."""
    if not isinstance(value, str) or value.isprintable():
        return value
    keep = "\n" if key == "stack" else ""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in value
    )
