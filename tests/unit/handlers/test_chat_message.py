"""What a chat message says of an event."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.event import Dispatch, DispatchState, Event
from receiver.handlers.archive.result import ArchivedFile, result_of
from receiver.handlers.chat.message import advice, compose, day, meaning, span
from receiver.handlers.chat.settings import ChatSettings
from receiver.handlers.chat.text import link
from receiver.handlers.envelope import lookup
from submitter.errors import TASK_CODE_MEANINGS
from tests.support.chat_events import (
    MODEL,
    NOW,
    PICTURES,
    VIDEO,
    event,
    failed,
    kept,
    lost,
    message,
    run,
)


def test_a_completed_task_says_all_that_is_known() -> None:
    """What finished, the prompt, model, length, cost, time taken, who asked, and the link's end."""
    made = message(event())
    assert made.headline == "Video ready"
    assert made.good
    assert made.prompt == "A lighthouse at dusk"
    assert made.facts == [
        ("Model", MODEL),
        ("Length", "5 s"),
        ("Cost", "0.25 USD"),
        ("Took", "1 min 2 s"),
        ("Asked by", "ada"),
    ]
    [output] = made.outputs
    assert (output.label, output.url, output.source) == ("Video", VIDEO, VIDEO)
    assert output.fate == "this link expires on 2026-08-08 12:02 UTC"


def test_what_is_not_known_is_not_said() -> None:
    """A body with an id and a status, and nothing else."""
    bare = Event("e", "wavespeed", "prediction.completed", body=b'{"id":"a","status":"completed"}')
    made = message(bare)
    assert made.headline == "Completed, without an output"
    assert (made.facts, made.outputs, made.notes, made.prompt) == ([], (), (), None)


@pytest.mark.parametrize(
    ("outputs", "headline"),
    [
        (PICTURES[:1], "Image ready"),
        (PICTURES[:3], "3 images ready"),
        ([VIDEO, PICTURES[0]], "2 outputs ready"),
        (["https://cdn.example.com/a.mp3"] * 2, "2 audio files ready"),
        (["https://cdn.example.com/a"], "File ready"),
    ],
)
def test_headline_names_what_is_there(outputs: list[str], headline: str) -> None:
    """By the endings of the URLs."""
    assert message(event(outputs=outputs)).headline == headline


@pytest.mark.parametrize(
    ("type", "headline", "good", "told"),
    [
        ("prediction.failed", "Task failed", False, None),
        ("prediction.timeout", "Task timed out", False, None),
        ("prediction.cancelled", "Task cancelled", False, None),
        ("prediction.processing", "Task update", None, "prediction.processing"),
    ],
)
def test_other_ends(type: str, headline: str, good: bool | None, told: str | None) -> None:
    """A status that is not known stands beside our own words, not in them."""
    made = message(event(type, outputs=[]))
    assert (made.headline, made.good, made.type) == (headline, good, told)


def test_an_event_that_is_no_task() -> None:
    """Of another source, or parked: its type, and no more."""
    other = message(Event("billing:1", "billing", "invoice.paid", context={"user": 7}))
    assert (other.headline, other.type, other.task) == ("New event", "invoice.paid", "billing:1")
    assert other.facts == [("Type", "invoice.paid"), ("Asked by", "7")]
    assert message(Event("a:1", "a", "parked")).headline == "An event that cannot be read"


def test_a_flagged_output_is_said_and_not_shown() -> None:
    """No link, nothing to upload; flags may be null, or fewer than the outputs."""
    made = message(event(outputs=[VIDEO, *PICTURES[:2]], has_nsfw_contents=[True, False]))
    hidden, shown, unsaid = made.outputs
    assert (hidden.url, hidden.source) == (None, None)
    assert "not safe for work" in hidden.fate
    assert [each.url for each in (shown, unsaid)] == PICTURES[:2]
    assert message(event(has_nsfw_contents=None)).outputs[0].url == VIDEO


def test_a_flagged_output_is_not_shown_from_the_archive_either() -> None:
    """That it was kept does not make it fit to be shown."""
    [output] = message(event(has_nsfw_contents=[True]), run(earlier=kept())).outputs
    assert (output.url, output.source, output.lasting) == (None, None, False)


def test_the_lasting_link_of_an_archive_goes_first() -> None:
    """By the source's URL; the upload still reads what the API has."""
    [output] = message(event(), run(earlier=kept())).outputs
    assert output.url == "https://keep.example.com/7f3c1d0e/0.mp4"
    assert (output.fate, output.lasting, output.source) == ("kept", True, VIDEO)


def test_what_was_kept_without_a_link_says_so() -> None:
    """The API's link, with its end."""
    [output] = message(event(), run(earlier=kept(url=None))).outputs
    assert output.url == VIDEO
    assert output.fate == ("kept, without a public link; this link expires on 2026-08-08 12:02 UTC")


def test_of_two_archives_the_one_with_a_link_counts() -> None:
    """In whichever order their names come."""
    files = [ArchivedFile(VIDEO, "n", "https://other.example.com/v", 1, "", "image/png")]
    more = {"aaa": Dispatch("id", "aaa", DispatchState.DONE, result=result_of(files))}
    for earlier in (kept(url=None) | more, {"zzz": more["aaa"]} | kept(url=None)):
        [output] = message(event(), run(earlier=earlier)).outputs
        assert (output.url, output.label) == ("https://other.example.com/v", "Image")


def test_a_dead_archive_is_told_with_the_end_of_the_links() -> None:
    """What failed, why, and until when somebody can still act."""
    made = message(event(), run(earlier=lost()))
    assert made.notes == (
        "keep failed: storage.example.com: HTTP 403; the links here expire on 2026-08-08 12:02 UTC",
    )
    assert message(failed(1403), run(earlier=lost())).notes == (
        "keep failed: storage.example.com: HTTP 403",
    )


def test_after_seven_days_there_is_no_link() -> None:
    """But for what was kept."""
    late = NOW + 7 * 86_400.0
    [output] = message(event(), now=late).outputs
    assert (output.url, output.source) == (None, None)
    assert output.fate == "the API has deleted it after 7 days"
    [output] = message(event(), run(earlier=kept()), now=late).outputs
    assert (output.url, output.source) == ("https://keep.example.com/7f3c1d0e/0.mp4", None)


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,AAAA", "javascript:alert(1)", "https://", "https://u:p@x.example"],
)
def test_what_is_no_url_for_a_person_is_not_linked(url: str) -> None:
    """F17: an output in base64 is not pasted into a chat."""
    [output] = message(event(outputs=[url])).outputs
    assert (output.url, output.source) == (None, None)
    assert output.fate == "its link cannot be shown"


def test_only_ten_outputs_are_listed() -> None:
    """The rest is counted."""
    made = message(event(outputs=PICTURES))
    assert len(made.outputs) == 10
    assert (made.more, made.rest) == (2, "and 2 more")
    assert message(event()).rest is None


@pytest.mark.parametrize("code", TASK_CODE_MEANINGS)
def test_each_code_is_said_in_plain_words_with_what_to_do(code: int) -> None:
    """With the vendor's own words beside it."""
    made = message(failed(code, "the vendor's words"))
    facts = dict(made.facts)
    assert facts["Why"] == f"{TASK_CODE_MEANINGS[code]}, code {code}"
    assert facts["The API said"] == "the vendor's words"
    assert facts["What to do"].endswith(".")
    assert made.outputs == ()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (1200, "failed", "Change the prompt"),
        (1402, "failed", "Use a public URL"),
        (1999, "failed", "Correct the input"),
        (5999, "failed", "submit again later"),
        (None, "timeout", "submit again later"),
        (None, "cancelled", "still need it"),
        (None, "failed", "change the input"),
    ],
)
def test_what_to_do_goes_by_code_and_then_by_status(
    code: int | None, status: str, words: str
) -> None:
    """1xxx: fix the request; 5xxx: later."""
    assert words in advice(code, status)


def test_a_code_that_is_not_known_is_shown_as_it_is() -> None:
    """And none where there is none."""
    assert (meaning(1999), meaning(0), meaning(None)) == ("code 1999", None, None)


@pytest.mark.parametrize(
    ("body", "context", "fact"),
    [
        ({}, {"cost": "0.5"}, ("Cost", "0.5 USD")),
        ({}, {"cost": 0}, ("Cost", "0 USD")),
        ({"cost": 1.25}, {"user": "x"}, ("Cost", "1.25 USD")),
        ({"input": {"duration": "10"}}, None, ("Length", "10 s")),
        ({"timings": None, "executionTime": 1500}, None, ("Took", "1.5 s")),
        ({"timings": {}}, None, ("Took", "1 min 2 s")),
        ({}, {"user": 12}, ("Asked by", "12")),
    ],
)
def test_facts_come_from_where_they_are_known(
    body: dict[str, Any], context: dict[str, Any] | None, fact: tuple[str, str]
) -> None:
    """From the context, the prediction, or the time between its two moments."""
    assert fact in message(event(context=context, **body)).facts


@pytest.mark.parametrize(
    ("body", "context", "name"),
    [
        ({}, {"cost": -1}, "Cost"),
        ({}, {"cost": True}, "Cost"),
        ({}, {"cost": "much"}, "Cost"),
        ({}, {"cost": 10**400}, "Cost"),
        ({"input": {"duration": 0}}, None, "Length"),
        ({"input": {"duration": [5]}}, None, "Length"),
        ({"timings": None, "created_at": "2027-01-01T00:00:00Z"}, None, "Took"),
        ({"timings": None, "created_at": None}, None, "Took"),
        ({}, {"user": {"id": 1}}, "Asked by"),
        ({}, {"user": True}, "Asked by"),
        ({}, ["user"], "Asked by"),
    ],
)
def test_what_makes_no_sense_is_not_said(body: dict[str, Any], context: Any, name: str) -> None:
    """A wrong figure is worse than none."""
    assert name not in dict(message(event(context=context, **body)).facts)


def test_keys_of_the_context_are_settings() -> None:
    """Dotted, into tables of the context."""
    made = message(
        event(context={"who": {"name": "bo"}, "paid": {"usd": 2}}),
        user_from="who.name",
        cost_from="paid.usd",
        prompt=6,
    )
    assert (made.user, made.cost, made.prompt) == ("bo", "2 USD", "A lig…")
    assert message(event(), prompt=0).prompt is None
    assert lookup({"a": {"b": 1}}, "a.b") == 1
    assert lookup({"a": 1}, "a.b") is None
    assert lookup({"a": 1}, None) is None


def test_a_message_is_the_same_each_time() -> None:
    """Pure: the same event, run and time give the same message."""
    made = [compose(event(), run(), NOW, ChatSettings()) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (62.0, "1 min 2 s"), (3700.0, "1 h 1 min")],
)
def test_spans_of_time_are_said_as_a_person_does(seconds: float, words: str) -> None:
    """Seconds, minutes, hours."""
    assert span(seconds) == words


def test_moments_are_in_utc_and_bounded() -> None:
    """F6: no time of a sender is beyond all calendars."""
    assert day(NOW) == "2026-08-01 12:02 UTC"
    assert day(1e15) == "9999-12-31 23:59 UTC"


@pytest.mark.parametrize(
    ("url", "made"),
    [
        (
            "https://a.example/x y(1)|<2>'\"`\\.mp4",
            "https://a.example/x%20y%281%29%7C%3C2%3E%27%22%60%5C.mp4",
        ),
        ("https://a.example/é?q=ü#part", "https://a.example/%C3%A9?q=%C3%BC"),
        ("https://bücher.example/a", "https://xn--bcher-kva.example/a"),
        ("https://a.example/a%20b", "https://a.example/a%20b"),
        ("https://a.example/" + "a" * 2000, None),
        ("ftp://a.example/a", None),
        ("https://a)(b.example/a", None),
        ("", None),
    ],
)
def test_links_hold_no_mark_of_any_markup(url: str, made: str | None) -> None:
    """F17: what is not plain is percent-encoded, which leads to the same place."""
    assert link(url) == made
