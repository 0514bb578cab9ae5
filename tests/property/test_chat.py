"""Whatever an event holds, each service gets a message that it takes, and that is only text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.event import Dispatch, DispatchState, Event
from receiver.handlers.base import Context
from receiver.handlers.chat import apprise, blocks, discord, teams, telegram
from receiver.handlers.chat.message import Message, compose
from receiver.handlers.chat.settings import ChatSettings
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import choose_lines, clean, cost, cut, fullwidth, link, units
from receiver.strict_json import Unreadable, parse
from tests.support import chat_limits as limits
from tests.support.chat_events import HOSTILE, MODEL, NOW, VIDEO

MARKS = "@<>[]()*_~`|#&\\{}$:/!-+\n\t \u200b\u202e\U0001f980\U000e0041é漢"
texts = (
    st.text(max_size=300)
    | st.text(alphabet=MARKS, max_size=300)
    | st.sampled_from([HOSTILE, "\U0001f980" * 5000, "\\" * 3000, "`" * 3000, "&" * 4000, VIDEO])
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
urls = (
    texts
    | texts.map(lambda text: f"https://cdn.example.com/{text}")
    | texts.map(lambda text: f"https://{text}/a.png")
    | st.integers(1, 3000).map(lambda n: f"https://cdn.example.com/a.png?{'x' * n}")
    | st.sampled_from([VIDEO, "https://[2001:db8::1]/a.mp4", "javascript:alert(1)", "data:x,y"])
)
bodies = st.fixed_dictionaries(
    {
        "id": texts.filter(bool),
        "status": st.sampled_from(["completed", "failed", "timeout", "cancelled", "x"])
        | texts.filter(bool),
    },
    optional={
        "outputs": st.lists(urls, max_size=14) | scalars,
        "has_nsfw_contents": st.lists(st.booleans(), max_size=14) | scalars,
        "created_at": texts | st.just("2026-08-01T12:01:40.123456789Z"),
        "timings": st.fixed_dictionaries({"inference": scalars}) | scalars,
        "input": st.fixed_dictionaries({"prompt": scalars, "duration": scalars}) | scalars,
        "model": scalars,
        "error": scalars,
        "code": st.sampled_from([0, 1200, 1402, 1999, 5000, 5004]) | scalars,
        "cost": scalars,
    },
)
contexts = st.recursive(
    scalars,
    lambda inner: st.dictionaries(st.sampled_from(["user", "cost", "notify"]), inner),
    max_leaves=6,
)
files = st.fixed_dictionaries(
    {
        "source": urls,
        "name": texts,
        "url": st.none() | urls,
        "size": st.integers(0),
        "sha256": texts,
        "type": texts | st.sampled_from(["image/png", "video/mp4"]),
    }
)
results: st.SearchStrategy[Any] = contexts | st.fixed_dictionaries(
    {"files": st.lists(files, max_size=3)}
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[Event, Message]:
    """A message of anything that a source may let through."""
    body = json.dumps(draw(bodies | scalars)).encode()
    # Sources let nothing through that is not strict JSON; such an event is parked.
    try:
        parse(body)
    except Unreadable:
        body = b"{}"
    kind = draw(st.sampled_from(["prediction.completed", "parked"]) | texts.filter(bool))
    event = Event(
        id=draw(texts.filter(bool)),
        source="wavespeed",
        type=kind,
        subject=draw(st.none() | texts.filter(bool)),
        model=draw(st.none() | st.just(MODEL) | texts.filter(bool)),
        context=draw(contexts),
        body=body,
        occurred_at=draw(st.just(NOW) | st.floats(-1e12, 1e12)),
        received_at=NOW,
    )
    earlier = {
        name: Dispatch(
            event.id,
            name,
            draw(st.sampled_from([DispatchState.DONE, DispatchState.DEAD])),
            result=draw(results),
            error=draw(st.none() | texts),
        )
        for name in draw(st.sets(st.sampled_from(["keep", "a", "b", "c", "d", "e", "f"])))
    }
    context = Context("key", "team", 1, NOW + 30, earlier)
    return event, compose(event, context, NOW, ChatSettings(prompt=draw(st.integers(0, 1000))))


TEMPLATES = [
    None,
    Template("{{ prompt }}"),
    Template(
        "# {{ headline }} **{{ model }}** {{ user }} {{ context }} {{ context.notify.a.b }}\n"
        "{% for output in outputs %}<{{ output.url }}|{{ output.label }}> {{ output.fate }}\n"
        "{% endfor %}{% for name, value in facts %}{{ name }} {{ value|upper }}\n{% endfor %}"
        "{{ failure.said }} {{ prompt }} {{ task }} {{ type }} {{ more }}"
    ),
]


@pytest.mark.parametrize("template", TEMPLATES, ids=["ours", "short", "long"])
@settings(max_examples=50)
@given(made=messages())
def test_any_event_makes_messages_within_the_limits(
    template: Template | None, made: tuple[Event, Message]
) -> None:
    """F17: of all services; also by a template, whose own text is not the tests' matter."""
    event, message = made
    words = template.render(message, event) if template else None
    assert (words is None) == (template is None)
    limits.slack(blocks.payload(message, words, images=True))
    limits.slack(blocks.payload(message, None, images=False))
    limits.teams(teams.payload(message, words))
    for limit in (telegram.MAX_TEXT_UNITS, telegram.MAX_CAPTION_UNITS):
        limits.telegram(*telegram.render(message, words, limit), limit)
    for limit in (100, 4000):
        assert limits.utf16(apprise.text(message, words, limit)) <= limit
    limits.discord(discord.payload(message, None))
    embed: dict[str, Any] = discord.payload(message, words)["embeds"][0]
    assert limits.utf16(embed.get("description", "")) <= 4096


@given(made=messages())
def test_what_telegram_looks_through_is_our_own(made: tuple[Event, Message]) -> None:
    """F17: outside of code there are our words only, whatever the event holds."""
    text, marks = telegram.render(made[1], None, telegram.MAX_TEXT_UNITS)
    bare = limits.outside(text, marks)
    assert not re.search(r"[@#$/<>*_`\[\]{}\\]", bare), bare


@given(text=texts, limit=st.integers(0, 400))
def test_a_cut_text_is_a_printable_line_within_its_limit(text: str, limit: int) -> None:
    """Also in a count that charges more for some letters; never half an escape."""
    line = clean(text, limit)
    assert limits.utf16(line) <= limit
    limits.printable(line)
    assert "\n" not in line
    assert line == " ".join(line.split())
    for escape in (discord.escape, blocks.escape, fullwidth):
        short = escape(cut(line, limit // 2, cost(escape)))
        assert limits.utf16(short) <= limit // 2
        assert not re.search(r"(?<!\\)(?:\\\\)*\\$", short) or escape is not discord.escape
        assert not re.search(r"&(?!amp;|lt;|gt;)", short) or escape is not blocks.escape


@given(text=texts)
def test_units_are_what_utf_16_has(text: str) -> None:
    """Counted without encoding it."""
    text = text.encode(errors="replace").decode()
    assert units(text) == limits.utf16(text)


@given(url=urls)
def test_a_link_is_inert_or_none(url: str) -> None:
    """F17: no quote, bracket, pipe or space; and it still leads to where it led."""
    found = link(url)
    if found is not None:
        limits.web(found, 2000)
        assert link(found) == found


@given(lines=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50))), limit=st.integers(0, 200))
def test_lines_that_fit_are_in_order_and_fit(lines: list[tuple[int, int]], limit: int) -> None:
    """None is left out that would still have room, but for those that rank before it."""
    kept = choose_lines(lines, limit)
    assert kept == sorted(set(kept))
    left = limit - sum(lines[place][1] for place in kept)
    assert left >= 0
    out = set(range(len(lines))) - set(kept)
    assert all(lines[place][1] > left for place in out)
