"""A message's text as the operator wrote it."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.handlers.chat import discord
from receiver.handlers.chat.discord import escape
from receiver.handlers.chat.template import FILTERS, MAX_RENDERED_CHARS, Template, TemplateUnusable
from receiver.handlers.chat.text import Span, join
from tests.support.chat_events import VIDEO, event, failed, message

HOOK = "https://discord.com/api/webhooks/1/s3cret"


def rendered(source: str, **body: Any) -> str:
    """Foreign text stands between angle quotes."""
    spans = Template(source).render(message(event(**body)), event(**body))
    assert spans is not None
    return "".join(f"«{span.text}»" if span.foreign else span.text for span in spans)


def test_values_are_marked_and_the_rest_is_the_operators() -> None:
    """A link of ours is no foreign text: it may stand in markup."""
    text = rendered("*{{ prompt|upper }}* <{{ outputs[0].url }}> {{ context.user }}")
    assert text == f"*«A LIGHTHOUSE AT DUSK»* <{VIDEO}> «ada»"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'a' ~ prompt }}", "«aA lighthouse at dusk»"),
        ("{{ outputs[0].url|upper }}", f"«{VIDEO.upper()}»"),
        ("{{ more }} {{ more + 1 }} {{ 3 / 2 }} {{ -more }}", "«0» «1» «1.5» «0»"),
        ("{{ cost or 'nothing' }}", "«0.25 USD»"),
        ("{{ failure.said }}{{ context.a.b.c }}{{ context }}{{ failure is defined }}", ""),
        ("{% if failure %}bad{% elif outputs %}good{% endif %}", "good"),
        ("{{ 'y' if outputs|length > 0 and not failure else 'n' }}", "«y»"),
        (
            "{% for name, value in facts %}{{ loop.index }}{{ name }} {% endfor %}",
            "«1»«Model» «2»«Length» «3»«Cost» «4»«Took» «5»«Asked by»",
        ),
        ("{{ prompt.upper }}{{ prompt.__class__ }}{{ prompt|truncate(9) }}", "«A...»"),
        ("a\n{% for output in outputs %}\n{{ output.label }}\n{% endfor %}\nb", "a\n«Video»\nb"),
    ],
)
def test_expressions(source: str, text: str) -> None:
    """As Jinja means them; what is no text or number prints nothing."""
    assert rendered(source) == text


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{{ promt }}", "promt is not known, expected one of context, cost, "),
        ("a\n{% if %}", "line 2: "),
        ("{{ prompt", "line 1: "),
        ("{{ prompt|replace('', prompt) }}", "line 1: filter 'replace', expected one of capital"),
        ("{{ prompt|safe }}", "filter 'safe'"),
        ("{% for letter in prompt %}{% endfor %}", "a loop, expected one over outputs or facts"),
        ("{% for x in [1, 2] %}{% endfor %}", "a loop, expected one over"),
        ("{% for x in range(10000) %}{% endfor %}", "a loop, expected one over"),
        ("{% for x in outputs recursive %}{% endfor %}", "a loop, expected one over"),
        (
            "{% for a in facts %}" * 3 + "{% endfor %}" * 3,
            "no more than 2 inside each other",
        ),
        ("{{ 'a' * 1000000000 }}", "mul is not allowed in a template"),
        ("{{ 9 ** 999999999 }}", "pow is not allowed in a template"),
        ("{{ '%1000000000d' % 1 }}", "mod is not allowed in a template"),
        ("{% set x = prompt %}", "assign is not allowed in a template"),
        ("{% macro x() %}{% endmacro %}", "macro is not allowed in a template"),
        ("{{ prompt.upper() }}", "call is not allowed in a template"),
        ("{{ prompt[1:] }}", "slice is not allowed in a template"),
        ("{% include 'x' %}", "include is not allowed in a template"),
        ("{% for output in outputs %}{{ output.urll }}{% endfor %}", "Output has no 'urll'"),
        ("{{ failure.why }}", "cannot be rendered (Failure has no 'why')"),
        ("{{ 1 / 0 }}", "cannot be rendered (division by zero)"),
        ("\ue000{{ prompt }}", "no invisible characters"),
        ("a\u202eb", "no invisible characters"),
        ("a" * 8001, "8001 characters, expected at most 8000"),
    ],
)
def test_what_cannot_work_or_could_run_away_is_a_fault_at_start(source: str, fault: str) -> None:
    """A template that is taken does a bounded amount of work, whatever is in an event."""
    with pytest.raises(TemplateUnusable) as unfit:
        Template(source)
    assert fault in str(unfit.value)


def test_the_fault_names_the_handler_and_its_setting() -> None:
    """With all other faults of the section."""
    with pytest.raises(SettingsError) as error:
        discord.create("team", {"template": "{{ promt }}"})
    url, template = error.value.faults
    assert url == "handlers.team.url: missing, expected the URL of a webhook"
    assert template.startswith("handlers.team.template: promt is not known, expected one of ")


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who writes a template needs it."""
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "jinja2":
            raise ImportError("No module named 'jinja2'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    discord.create("team", {"url": HOOK})
    with pytest.raises(SettingsError, match=r"pip install 'wavehook\[templates\]'"):
        discord.create("team", {"url": HOOK, "template": "x"})


def test_what_only_an_event_shows_gives_the_standard_message() -> None:
    """None says so; the message goes out all the same."""
    template = Template("{{ 1 / (more - 2) }}")
    two_more = message(event(outputs=[VIDEO] * 12))
    assert template.render(message(event()), event()) is not None
    assert template.render(two_more, event()) is None


def test_output_is_bounded() -> None:
    """However often the template repeats what it prints."""
    source = "{% for a in outputs %}{% for b in outputs %}" + "{{ prompt }}" * 100
    spans = Template(source + "{% endfor %}{% endfor %}").render(
        message(event(outputs=[VIDEO] * 10)), event()
    )
    assert spans is not None
    # Without the bound it would be ten times as much.
    assert MAX_RENDERED_CHARS * 0.9 < sum(len(span.text) for span in spans) < MAX_RENDERED_CHARS


def test_every_filter_that_is_allowed_is_one() -> None:
    """And each of them makes a text no longer than a few words."""
    for name in FILTERS:
        assert len(rendered(f"{{{{ prompt|{name} }}}}")) < 100


def test_cut_text_ends_at_the_limit() -> None:
    """Spans are cut before they are escaped."""
    spans = [Span("**"), Span("@" * 10, foreign=True), Span("** and more")]
    assert join(spans, escape, 10) == r"**\@\@\@…"
    assert join(spans, str, 100) == "**@@@@@@@@@@** and more"


def test_failures_have_their_words() -> None:
    """Meaning, advice, and what the API said."""
    task = failed(1200, "no")
    spans = Template("{{ failure.meaning }}: {{ failure.said }}").render(message(task), task)
    assert spans is not None
    assert [span.text for span in spans if span.foreign] == ["content moderation, code 1200", "no"]
