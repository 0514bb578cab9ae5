"""The log: one format, escaped, without secrets, for our lines and everybody else's."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from receiver.telemetry import TelemetryEvent
from receiver.telemetry.log import configure, log_hook, logger, stack

EVIL = "a\r\nb\x1b[31m\x00\u2028\x85\ud800c"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(body: str) -> None:
    secret = f"local {body}"
    try:
        json.loads(secret)
    except ValueError as error:
        raise RuntimeError(f"could not read {body}") from error


def raised(body: str = "prompt") -> BaseException:
    try:
        fail(body)
    except RuntimeError as error:
        return error
    raise AssertionError


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    """A line has a name, a level, a time and its fields."""
    configure(stream)

    logger().info("something.happened", number=1, flag=True, nothing=None, odd=object())

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "something.happened",
        "level": "info",
        "number": 1,
        "flag": True,
        "nothing": None,
        "odd": "<object>",
    }


@pytest.mark.parametrize(
    ("stream", "json", "expected"),
    [
        (io.StringIO(), None, True),
        (Terminal(), None, False),
        (Terminal(), True, True),
        (io.StringIO(), False, False),
    ],
)
def test_json_unless_a_terminal(stream: io.StringIO, json: bool | None, expected: bool) -> None:
    """A person at a terminal gets text, a file or a pipe JSON; a setting goes before both."""
    configure(stream, json=json)

    logger().info("something.happened")

    assert stream.getvalue().startswith("{") is expected
    assert ("\x1b[" in stream.getvalue()) is (not expected and stream.isatty())


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the commands."""
    configure()

    logger().warning("something.happened")

    assert '"something.happened"' in capsys.readouterr().err


def test_the_level_is_a_floor_for_everybody(stream: io.StringIO) -> None:
    """What is below the level is not written, whoever says it."""
    configure(stream, "warning")

    logger().info("ours")
    logging.getLogger("theirs").info("theirs")
    logging.getLogger("theirs").warning("told")

    assert [line["event"] for line in lines(stream)] == ["told"]


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "asyncio", "anything"])
def test_others_lines_take_the_same_form(stream: io.StringIO, name: str) -> None:
    """Uvicorn's and the standard library's lines come out like ours, once."""
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(sys.stdout))
    configure(stream)

    logging.getLogger(name).warning("it %s\n", "rains")

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "it rains", "level": "warning", "logger": name}


def test_lines_that_hold_whole_urls_are_not_written(stream: io.StringIO) -> None:
    """F16: uvicorn's access log and httpx's requests show tokens in URLs, botocore bodies."""
    configure(stream, level="debug")

    for name in ("uvicorn.access", "httpx", "httpcore.connection", "botocore.endpoint"):
        logging.getLogger(name).info("POST /webhooks/wavespeed/token")

    assert stream.getvalue() == ""
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize("json", [True, False])
def test_control_characters_are_escaped(stream: io.StringIO, json: bool) -> None:
    """F17: a stranger's text cannot begin a line or steer a terminal."""
    configure(stream, json=json)

    logger().info(EVIL, value=EVIL)
    logging.getLogger("theirs").warning("%s", EVIL)

    assert len(stream.getvalue().splitlines()) == 2
    assert stream.getvalue().replace("\n", "").isprintable()


def test_others_lines_are_bounded(stream: io.StringIO) -> None:
    """F17: a megabyte in a message of another library is cut."""
    configure(stream)

    logging.getLogger("theirs").warning("%s", "x" * 1_000_000)

    assert len(stream.getvalue()) < 2200


@pytest.mark.parametrize("json", [True, False])
def test_a_traceback_shows_places_and_no_data(stream: io.StringIO, json: bool) -> None:
    """F16: neither locals nor the text of an exception, which may quote a body."""
    configure(stream, json=json)

    logger().error("ours", exc_info=raised())
    try:
        fail("prompt")
    except RuntimeError:
        logger().exception("handled")
        logging.getLogger("theirs").exception("theirs")

    text = stream.getvalue()
    assert "local prompt" not in text
    assert "read prompt" not in text
    assert text.count("in fail") == 6
    assert text.count("JSONDecodeError") >= 3
    if json:
        assert [line["error"] for line in lines(stream)] == ["RuntimeError"] * 3


@pytest.mark.parametrize("nothing", [None, False, (None, None, None), True])
def test_no_exception_is_no_traceback(stream: io.StringIO, nothing: object) -> None:
    """`exc_info` without an exception adds nothing."""
    configure(stream)

    logger().error("ours", exc_info=nothing)

    assert set(lines(stream)[0]) == {"event", "level", "timestamp"}


def test_a_stack_is_bounded_and_follows_causes() -> None:
    """F17: neither a deep recursion nor a long chain of causes makes a line endless."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError

    chain: BaseException = ValueError()
    for _ in range(100):
        outer = KeyError()
        outer.__cause__ = chain
        chain = outer
    quiet = RuntimeError()
    quiet.__context__, quiet.__suppress_context__ = ValueError(), True
    text = ""
    try:
        deep(500)
    except ValueError as error:
        text = stack(error)

    assert 0 < len(text) < 10_000
    assert stack(chain).count("KeyError") == 5
    assert stack(quiet) == "RuntimeError"
    group = ExceptionGroup("prompt", [ValueError("prompt"), KeyError("prompt")])
    assert stack(group) == "ExceptionGroup of ValueError, KeyError"


@pytest.mark.parametrize(
    ("details", "level"),
    [
        (TelemetryEvent("reconcile.asked", task_id="t"), "debug"),
        (TelemetryEvent("dispatch.settled", outcome="done", seconds=0.12345678), "info"),
        (TelemetryEvent("dispatch.settled", outcome="released"), "info"),
        (TelemetryEvent("dispatch.settled", outcome="retry", error="TimeoutError"), "warning"),
        (TelemetryEvent("dispatch.settled", outcome="dead"), "error"),
        (TelemetryEvent("dispatch.settled"), "info"),
        (TelemetryEvent("dispatch.lost"), "warning"),
        (TelemetryEvent("handler.paused", until=1.0), "warning"),
        (TelemetryEvent("store.failed", error="disk full"), "error"),
        (TelemetryEvent("store.recovered"), "info"),
        (TelemetryEvent("something.new"), "info"),
        (TelemetryEvent("delivery.rejected", skew=400.0, result="stale"), "warning"),
    ],
    ids=lambda value: value.name if isinstance(value, TelemetryEvent) else value,
)
def test_a_hook_writes_what_happened(
    stream: io.StringIO, details: TelemetryEvent, level: str
) -> None:
    """Rule 23, F6: each thing that happens in the background is a line with a fitting level."""
    configure(stream, "debug")

    log_hook(details)

    (line,) = lines(stream)
    assert (line["event"], line["level"]) == (details.name, level)
    assert None not in line.values()
    for name in ("handler", "outcome", "error", "until", "skew", "result"):
        assert line.get(name) == getattr(details, name)
    if details.seconds is not None:
        assert line["seconds"] == 0.123457


@pytest.mark.parametrize("name", ["delivery.accepted", "delivery.rejected", "delivery.failed"])
def test_a_delivery_is_left_to_its_requests_line(stream: io.StringIO, name: str) -> None:
    """One line a request."""
    configure(stream, "debug")

    log_hook(TelemetryEvent(name, source="wavespeed", result="new"))

    assert stream.getvalue() == ""
