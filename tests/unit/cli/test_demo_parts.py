"""The demo's log, pictures and handler, without a demo."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from receiver.demo.story import DemoLog, DemoSummary, TaskRow, publish
from receiver.demo.view import Lines, picture, summary_text
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import marked
from receiver.telemetry import TelemetryEvent

ONE, TWO = "1" * 32, "2" * 32
SUMMARY = DemoSummary(10, 13, 3, 1, 2, 10, exactly_once=True, seconds=4.25)


def told(name: str, task: str | None = None, **more: object) -> TelemetryEvent:
    details = TelemetryEvent(name, event_id=f"wavespeed:{task}:completed" if task else None)
    return details._replace(**more)  # type: ignore[arg-type]


def test_the_ledger_counts_by_task() -> None:
    """Webhooks, duplicates, lost, failed and successful attempts, and refusals."""
    log = DemoLog(2)
    log.submitted(ONE)
    log.hook(told("delivery.accepted", ONE, result="new", status=202))
    log.killed(ONE)
    log.hook(told("delivery.accepted", ONE, result="duplicate", status=200))
    log.hook(told("dispatch.settled", ONE, outcome="retry", attempt=2))
    log.hook(told("dispatch.settled", ONE, outcome="done", attempt=3))
    log.hook(told("delivery.rejected", result="signature", status=401))
    assert log.rows == [TaskRow(1, ONE, webhooks=2, attempts=3, handled=True)]
    assert (log.duplicates, log.failed, log.refused) == (1, 2, 1)
    assert not log.complete
    log.submitted(TWO)
    log.hook(told("dispatch.settled", TWO, outcome="done", attempt=1))
    assert log.complete


def test_the_users_handlers_are_counted_beside() -> None:
    """Their outcomes by name; whether a task is handled is the demo's own handler's to say."""
    log = DemoLog(1)
    log.user_handlers = {"keep": Counter(), "tell": Counter()}
    log.submitted(ONE)
    for outcome, error in (("retry", "full"), ("done", None)):
        log.hook(
            told("dispatch.settled", ONE, handler="keep", outcome=outcome, attempt=1, error=error)
        )
    assert log.user_handlers == {"keep": {"retry": 1, "done": 1}, "tell": {}}
    assert (log.failed, log.done) == (1, set())
    assert log.notes[-2:] == [
        f"task  1 {ONE[:8]}  keep: retry, attempt 1 (full)",
        f"task  1 {ONE[:8]}  keep: done, attempt 1",
    ]
    plain = Console(width=100)
    with plain.capture() as shown:
        plain.print(picture(log, {}))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["keep", "1", "retry,", "1", "done"] in rows
    assert ["tell", "none", "yet"] in rows


def test_a_webhook_may_come_before_its_submit_has_returned() -> None:
    """F28: it is counted, and the row has it once the task is known."""
    log = DemoLog(1)
    log.hook(told("delivery.accepted", ONE, result="new"))
    log.hook(told("store.failed"))
    assert log.rows == []
    log.submitted(ONE)
    assert log.rows[0].webhooks == 1
    assert "its webhook arrived even earlier" in log.notes[-1]
    assert len(log.notes) == 2


def test_lines_tell_every_note_once() -> None:
    """Nothing is repeated, nothing is left out."""
    log, lines = DemoLog(2), list[str]()
    view = Lines(lines.append)
    log.submitted(ONE)
    view.show(log, {})
    view.show(log, {})
    log.submitted(TWO)
    view.show(log, {})
    assert lines == log.notes


def test_the_picture_has_a_row_for_each_task() -> None:
    """Number, id, status, webhook, attempts, handled."""
    log = DemoLog(10)
    for task in (ONE, TWO):
        log.submitted(task)
    for result in ("new", "duplicate"):
        log.hook(told("delivery.accepted", ONE, result=result))
    log.hook(told("dispatch.settled", ONE, outcome="done", attempt=1))
    plain = Console(width=100)
    with plain.capture() as shown:
        plain.print(picture(log, {ONE: "completed"}))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["1", "11111111", "completed", "verified,", "1", "more", "dropped", "1", "yes"] in rows
    assert ["2", "22222222", "-", "-", "-", "-"] in rows
    assert "1/10 handled" in shown.get()


def test_the_summary_says_all_there_is_to_say() -> None:
    """Every figure with its name; how to look into the inbox only where there is one."""
    text = summary_text(SUMMARY)
    for words in ("10 tasks submitted", "13 webhooks received", "3 of these dropped as duplicates"):
        assert words in text
    assert "10 tasks handled (each exactly once, in 4.2 s)" in text
    assert "database" not in text
    with_guests = summary_text(
        replace(SUMMARY, handlers={"keep": {"done": 9, "dead": 1}, "tell": {}})
    )
    assert "\n    keep: 9 done, 1 dead\n    tell: none yet" in with_guests
    kept = summary_text(replace(SUMMARY, exactly_once=False, database="/x/demo.db"))
    assert "NOT each exactly once" in kept
    assert "wavehook events --database sqlite:////x/demo.db --json" in kept


def event(context: object, **body: object) -> Event:
    whole = {"id": ONE, "status": "completed", **body}
    return Event(
        id=f"wavespeed:{ONE}:completed",
        source="wavespeed",
        type="prediction.completed",
        context=context,  # type: ignore[arg-type]
        body=json.dumps(whole).encode(),
    )


def at(attempt: int) -> Context:
    return Context(key="k", handler="publish", attempt=attempt, deadline=0)


@pytest.mark.parametrize(
    "given", [event({"task": 1}), event(None, outputs=["http://127.0.0.1:9"]), event({}, id=1)]
)
async def test_the_handler_refuses_what_is_not_the_demos(given: Event) -> None:
    """No output, no context, no prediction."""
    with pytest.raises(ValueError, match="an output and a context"):
        await publish(given, at(1))


def test_the_handler_is_found_by_its_module() -> None:
    """`demo` is what the store's dispatches are called: a name that no user's handler has."""
    installed = marked(publish)
    assert installed is not None
    assert installed.name == "demo"
