"""Templates for the text of messages, in Jinja's sandbox; extra `templates`.

    {{ model }} made {{ outputs|length }} for {{ context.order }}
    {% for output in outputs %}
    {{ output.label }}: {{ output.url or output.fate }}
    {% endfor %}

Values are untrusted, and escaped for the service when the message is sent. The rest of a template
is the operator's text, in the service's own markup. The run time and size of a template are limited
by what it may contain: loops over `outputs` and `facts` only, nested twice at most; no calls,
assignments, powers or products; and only filters whose result is not longer than their input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from receiver.event import Event
from receiver.handlers.chat.message import Failure, Message, Output
from receiver.handlers.chat.text import Link, Span, clean

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARS = 8000

MAX_RENDERED_CHARS = 20_000
"""Rendering stops there; every service accepts less."""

FILTERS = frozenset(
    (
        "capitalize",
        "d",
        "default",
        "first",
        "float",
        "int",
        "last",
        "length",
        "lower",
        "title",
        "trim",
        "truncate",
        "upper",
    )
)
"""Filters whose run time and result are limited by their input."""

_LOOP_OVER = ("outputs", "facts")
_MAX_LOOP_DEPTH = 2
_MAX_VALUE_CHARS = 1000
# Private-use characters: values and templates never contain them.
_OPEN, _CLOSE = "\ue000", "\ue001"
_FOREIGN = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")


class TemplateUnusable(ValueError):
    """A template is not valid; the text says where and why."""


class Template:
    """A compiled template.

    Args:
        source: its text.

    Raises:
        TemplateUnusable: a syntax error, an unknown name, or an element that is not allowed.
        ImportError: Jinja is missing.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import TemplateSyntaxError, meta

        if len(source) > MAX_TEMPLATE_CHARS:
            raise TemplateUnusable(
                f"{len(source)} characters, expected at most {MAX_TEMPLATE_CHARS}"
            )
        if any(not (c.isprintable() or c in "\n\r\t") for c in source):
            raise TemplateUnusable("expected no invisible characters")
        environment = _environment()
        try:
            tree = environment.parse(source)
            _check(tree)
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateUnusable(f"line {error.lineno}: {error.message}") from None
        unknown = sorted(meta.find_undeclared_variables(tree) - _values(*_SAMPLES[0]).keys())
        if unknown:
            known = ", ".join(sorted(_values(*_SAMPLES[0])))
            raise TemplateUnusable(f"{', '.join(unknown)} is not known, expected one of {known}")
        for message, event in _SAMPLES:
            try:
                self._render(message, event)
            except Exception as error:  # noqa: BLE001 - it would fail at every message
                raise TemplateUnusable(f"cannot be rendered ({error})") from None

    def render(self, message: Message, event: Event) -> list[Span] | None:
        """Render the template for a message; None if that fails.

        The notes of a message are not in a template: they always follow its text.
        """
        try:
            text = self._render(message, event)
        except Exception:  # noqa: BLE001 - the standard message is sent instead
            return None
        return list(_spans(text))

    def _render(self, message: Message, event: Event) -> str:
        text = ""
        for part in self._template.generate(_values(message, event)):
            text += part
            if len(text) > MAX_RENDERED_CHARS:
                break
        return text.strip()


def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import ChainableUndefined, UndefinedError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(ChainableUndefined):
        """Renders a missing context key as nothing; refuses an unknown attribute of an output."""

        def __init__(self, hint: str | None = None, obj: Any = None, *rest: Any, **named: Any):
            super().__init__(hint, obj, *rest, **named)
            if isinstance(obj, Output | Failure):
                raise UndefinedError(f"{type(obj).__name__} has no {self._undefined_name!r}")

    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        finalize=_mark,
        undefined=Missing,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.clear()
    return environment


def _mark(value: object) -> str:
    """Mark a printed value as untrusted."""
    if isinstance(value, Link):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = clean(str(value), _MAX_VALUE_CHARS)
    return f"{_OPEN}{text}{_CLOSE}" if text else ""


def _spans(text: str) -> Iterator[Span]:
    end = 0
    for found in _FOREIGN.finditer(text):
        yield Span(text[end : found.start()])
        yield Span(found[1], foreign=True)
        end = found.end()
    # The last value of a truncated text has no end mark.
    yield Span(text[end:].partition(_OPEN)[0])


def _check(node: nodes.Node, depth: int = 0) -> None:
    """Check that a template has only allowed elements.

    Raises:
        TemplateUnusable: the text names the line.
    """
    from jinja2 import nodes

    allowed = (
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Tuple),
        *(nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Test),
        *(nodes.Keyword, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
        *(nodes.CondExpr, nodes.Concat, nodes.Add, nodes.Sub, nodes.Div, nodes.Neg),
    )
    if not isinstance(node, allowed):
        raise TemplateUnusable(
            f"line {node.lineno}: {type(node).__name__.lower()} is not allowed in a template"
        )
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        known = ", ".join(sorted(FILTERS))
        raise TemplateUnusable(f"line {node.lineno}: filter {node.name!r}, expected one of {known}")
    if isinstance(node, nodes.For):
        over = node.iter.name if isinstance(node.iter, nodes.Name) else None
        depth += 1
        if over not in _LOOP_OVER or node.recursive or depth > _MAX_LOOP_DEPTH:
            raise TemplateUnusable(
                f"line {node.lineno}: a loop, expected one over {' or '.join(_LOOP_OVER)}, and no "
                f"more than {_MAX_LOOP_DEPTH} inside each other"
            )
    for child in node.iter_child_nodes():
        _check(child, depth)


def _values(message: Message, event: Event) -> Mapping[str, Any]:
    """Names and values of a template."""
    return {
        "headline": message.headline,
        "type": event.type,
        "task": message.task,
        "model": message.model or "",
        "prompt": message.prompt or "",
        "duration": message.duration or "",
        "cost": message.cost or "",
        "took": message.took or "",
        "user": message.user or "",
        "outputs": message.outputs,
        "more": message.more,
        "facts": message.facts,
        "failure": message.failure,
        "context": event.context,
    }


_SAMPLES = (
    (
        Message(
            "Video ready",
            good=True,
            task="task",
            key="key",
            model="model",
            prompt="prompt",
            duration="5 s",
            cost="0.25 USD",
            took="1 min 2 s",
            user="user",
            outputs=(Output("Video", "video", Link("https://example.com/v.mp4"), "kept"),),
        ),
        Event("id", "wavespeed", "prediction.completed", context={}),
    ),
    (
        Message(
            "Task failed",
            good=False,
            task="task",
            key="key",
            failure=Failure("code 1", "advice", "said"),
        ),
        Event("id", "wavespeed", "prediction.failed", context={}),
    ),
)
"""Samples that a template is rendered with at start-up."""
