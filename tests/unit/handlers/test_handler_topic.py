"""Templates of topics: legal names only, of signed data only."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.event import Event
from receiver.handlers.brokers import kafka, mqtt, nats, rabbitmq, redis
from receiver.handlers.brokers.topic import MAX_VALUE_CHARS, TopicRules, TopicTemplate
from tests.support.events import event

DOTS = TopicRules(".", re.compile(r"[a-zA-Z0-9_-]+(?:\.[a-zA-Z0-9_-]+)*"), 300, "a name")
FORMS = [module.TOPIC_RULES for module in (nats, rabbitmq, redis, kafka, mqtt)]


def fill(text: str, made: Event, form: TopicRules = DOTS) -> str:
    return TopicTemplate(text, form).fill(made)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("wavehook", "wavehook"),
        ("wavehook.{type}", "wavehook.prediction.completed"),
        ("{source}.{subject}", "wavespeed.task-1"),
        ("a-{model}-b", "a-kwaivgi_kling-v2_1-i2v-standard-b"),
    ],
)
def test_fields_are_filled_in(template: str, name: str) -> None:
    """The dots of a type divide; those of a model do not."""
    assert fill(DOTS.check(template), event()) == name


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"type": "a..b."}, "a.b.task-1.none"),
        ({"type": ""}, "none.task-1.none"),
        ({"type": "...", "subject": ""}, "none.none.none"),
        ({"subject": "a.*.>#+/$ \r\n\0é"}, "prediction.completed.a_____________.none"),
    ],
)
def test_no_field_adds_a_level_or_a_wildcard(changes: dict[str, str], name: str) -> None:
    """F17, F18: what is not there is `none`."""
    assert fill("{type}.{subject}.{model}", event(model=None, **changes)) == name


def test_another_divider_divides_a_type_too() -> None:
    """MQTT has levels by slashes."""
    assert fill("a/{type}", event(), FORMS[4]) == "a/prediction/completed"


def test_a_long_field_ends_in_a_digest() -> None:
    """F17: two of them stay two, and both are short."""
    one, other = (fill("{subject}", event(subject="x" * 900 + end)) for end in "ab")
    assert one != other
    assert len(one) == len(other) == MAX_VALUE_CHARS
    assert re.fullmatch(r"x{47}_[0-9a-f]{16}", one)


@pytest.mark.parametrize("form", FORMS, ids=["nats", "rabbitmq", "redis", "kafka", "mqtt"])
@given(
    st.builds(
        Event,
        id=st.text(),
        source=st.text(max_size=300),
        type=st.text(max_size=300),
        subject=st.none() | st.text(max_size=300),
        model=st.none() | st.text(max_size=300),
    )
)
def test_any_event_gives_a_legal_name(form: TopicRules, made: Event) -> None:
    """F17: of any form, and as many levels as the template and the type have."""
    template = form.separator.join(("w", "{type}", "{model}", "{subject}"))
    name = fill(form.check(template), made, form)
    assert form.pattern.fullmatch(name)
    assert len(name) <= form.max_chars
    assert re.fullmatch(rf"w(?:[{form.separator}][A-Za-z0-9_-]+){{3,}}", name)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{",
        "}",
        "{}",
        "{0}",
        "{body}",
        "{type!r}",
        "{type:>9}",
        "{type.x}",
        "a b",
        "é",
        "{context}",
    ],
)
def test_a_template_that_cannot_be_is_a_fault(template: str) -> None:
    """F18: no other field, no format, nothing that is not legal."""
    for form in FORMS:
        with pytest.raises(ValueError, match="such as"):
            form.check(template)


def test_what_each_broker_keeps_for_itself_is_a_fault() -> None:
    """Wildcards, the server's own names, empty levels, too long ones."""
    faulty = {
        0: ["a.*", "a.>", ">", "$JS.x", "a..b", ".a", "a."],
        1: ["x" * 256],
        3: ["a/b", ".", "..", "x" * 250, "a:{type}"],
        4: ["a/#", "+/a", "$SYS/a"],
    }
    for number, templates in faulty.items():
        for template in templates:
            with pytest.raises(ValueError, match="once filled"):
                FORMS[number].check(template)
