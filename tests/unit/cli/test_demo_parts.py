"""The demo's ledger, pictures and handler, without a demo."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from receiver.demo.story import Ledger, Row, Summary, publish
from receiver.demo.view import Lines, closing, picture
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import marked
from receiver.telemetry import TelemetryEvent

ONE, TWO = "1" * 32, "2" * 32
SUMMARY = Summary(10, 13, 3, 1, 2, 10, exactly_once=True, seconds=4.25)


def told(name: str, task: str | None = None, **more: object) -> TelemetryEvent:
    details = TelemetryEvent(name, event_id=f"wavespeed:{task}:completed" if task else None)
    return details._replace(**more)  # type: ignore[arg-type]


def test_the_ledger_counts_by_task() -> None:
    """Webhooks, duplicates, lost, failed and successful attempts, and refusals."""
    ledger = Ledger(2)
    ledger.submitted(ONE)
    ledger.hook(told("delivery.accepted", ONE, result="new", status=202))
    ledger.lost(ONE)
    ledger.hook(told("delivery.accepted", ONE, result="duplicate", status=200))
    ledger.hook(told("dispatch.settled", ONE, outcome="retry", attempt=2))
    ledger.hook(told("dispatch.settled", ONE, outcome="done", attempt=3))
    ledger.hook(told("delivery.rejected", result="signature", status=401))
    assert ledger.rows == [Row(1, ONE, webhooks=2, attempts=3, handled=True)]
    assert (ledger.duplicates, ledger.failed, ledger.refused) == (1, 2, 1)
    assert not ledger.complete
    ledger.submitted(TWO)
    ledger.hook(told("dispatch.settled", TWO, outcome="done", attempt=1))
    assert ledger.complete


def test_the_users_handlers_are_counted_beside() -> None:
    """Their outcomes by name; whether a task is handled is the demo's own handler's to say."""
    ledger = Ledger(1)
    ledger.guests = {"keep": Counter(), "tell": Counter()}
    ledger.submitted(ONE)
    for outcome, error in (("retry", "full"), ("done", None)):
        ledger.hook(
            told("dispatch.settled", ONE, handler="keep", outcome=outcome, attempt=1, error=error)
        )
    assert ledger.guests == {"keep": {"retry": 1, "done": 1}, "tell": {}}
    assert (ledger.failed, ledger.done) == (1, set())
    assert ledger.notes[-2:] == [
        f"task  1 {ONE[:8]}  keep: retry, attempt 1 (full)",
        f"task  1 {ONE[:8]}  keep: done, attempt 1",
    ]
    plain = Console(width=100)
    with plain.capture() as shown:
        plain.print(picture(ledger, {}))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["keep", "1", "retry,", "1", "done"] in rows
    assert ["tell", "none", "yet"] in rows


def test_a_webhook_may_come_before_its_submit_has_returned() -> None:
    """F28: it is counted, and the row has it once the task is known."""
    ledger = Ledger(1)
    ledger.hook(told("delivery.accepted", ONE, result="new"))
    ledger.hook(told("store.failed"))
    assert ledger.rows == []
    ledger.submitted(ONE)
    assert ledger.rows[0].webhooks == 1
    assert "after its webhook had come" in ledger.notes[-1]
    assert len(ledger.notes) == 2


def test_lines_tell_every_note_once() -> None:
    """Nothing is repeated, nothing is left out."""
    ledger, lines = Ledger(2), list[str]()
    view = Lines(lines.append)
    ledger.submitted(ONE)
    view.show(ledger, {})
    view.show(ledger, {})
    ledger.submitted(TWO)
    view.show(ledger, {})
    assert lines == ledger.notes


def test_the_picture_has_a_row_for_each_task() -> None:
    """Number, id, status, webhook, attempts, handled."""
    ledger = Ledger(10)
    for task in (ONE, TWO):
        ledger.submitted(task)
    for result in ("new", "duplicate"):
        ledger.hook(told("delivery.accepted", ONE, result=result))
    ledger.hook(told("dispatch.settled", ONE, outcome="done", attempt=1))
    plain = Console(width=100)
    with plain.capture() as shown:
        plain.print(picture(ledger, {ONE: "completed"}))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["1", "11111111", "completed", "verified,", "1", "more", "dropped", "1", "yes"] in rows
    assert ["2", "22222222", "-", "-", "-", "-"] in rows
    assert "1/10 handled" in shown.get()


def test_the_summary_says_all_there_is_to_say() -> None:
    """Every figure with its name; how to look into the inbox only where there is one."""
    text = closing(SUMMARY)
    for words in ("submitted           10", "verified            13", "duplicates dropped  3"):
        assert words in text
    assert "handled             10  (all, exactly once, 4.2 s)" in text
    assert "database" not in text
    with_guests = closing(replace(SUMMARY, handlers={"keep": {"done": 9, "dead": 1}, "tell": {}}))
    assert "\nkeep                9 done, 1 dead\ntell                none yet" in with_guests
    kept = closing(replace(SUMMARY, exactly_once=False, database="/x/demo.db"))
    assert "NOT all exactly once" in kept
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
    with pytest.raises(ValueError, match="carry a context"):
        await publish(given, at(1))


def test_the_handler_is_found_by_its_module() -> None:
    """`demo` is what the store's dispatches are called: a name that no user's handler has."""
    installed = marked(publish)
    assert installed is not None
    assert installed.name == "demo"
