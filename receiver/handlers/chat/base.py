"""Base of all chat handlers: target, text and template of a message, and checks of the settings.

The text is sent first. A later step, such as an upload, may fail without a retry, which would send
the text again. Its error is in the dispatch's result.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.chat.http import ChatClient, Clock, Sleep, Waits, retry_after_header
from receiver.handlers.chat.media import MediaReader, MediaUnusable
from receiver.handlers.chat.message import Message, compose
from receiver.handlers.chat.settings import Chat
from receiver.handlers.chat.template import Template, TemplateUnusable
from receiver.handlers.chat.text import Span
from receiver.handlers.envelope import lookup
from receiver.handlers.settings import read
from submitter.prediction import JSON

_RESERVED_S = 2.0
"""Seconds before a deadline at which an optional step is stopped, so that the run ends in time."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to be sent.

    Attributes:
        message: its content.
        template_spans: text of the operator's template; None for the standard text.
        target: the channel, chat or webhook URL.
        attempt: of the dispatch, from 1.
        since: Unix seconds; an earlier attempt cannot have sent it before.
        deadline: Unix seconds.
    """

    message: Message
    template_spans: list[Span] | None
    target: str
    attempt: int
    since: float
    deadline: float


class Channel(ABC, Generic[Chat]):
    """A chat handler.

    Attributes:
        rules: defaults of the dispatcher's settings; an upload takes its time.

    Args:
        settings: of the handler.
        default_target: for events that name no target; None sends nothing for these.
        template: the operator's template, if any.
        clock: Unix seconds.
        sleep: sleeps for seconds.
    """

    rules: ClassVar[Mapping[str, str]] = {"timeout": "2m"}

    def __init__(
        self,
        settings: Chat,
        default_target: str | None,
        template: Template | None = None,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._default_target = default_target
        self._template = template
        self._clock = clock
        self._sleep = sleep

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Send the message of an event; the result identifies the sent message.

        Raises:
            Retry: a temporary fault.
            GiveUp: a permanent fault, or a target that is not in `targets`.
        """
        target, *notes = self._target_of(event)
        if target is None:
            # The event names no target, and there is no default.
            return {"sent": False}
        message = compose(event, context, self._clock(), self._settings)
        template_spans = None
        if self._template is not None:
            template_spans = self._template.render(message, event)
            if template_spans is None:
                notes.append("The template could not be rendered; this is the standard message")
        message = replace(message, notes=(*message.notes, *notes))
        result = await self.deliver(
            OutgoingMessage(
                message,
                template_spans,
                target,
                context.attempt,
                event.received_at,
                context.deadline,
            )
        )
        return {"sent": True, **result}

    def _target_of(self, event: Event) -> tuple[str | None, *tuple[str, ...]]:
        """Target of an event's message, and notes about it.

        The name in a context is untrusted: neither an error nor another target's message has it.
        """
        name = lookup(event.context, self._settings.target_from)
        if name is None:
            return (self._default_target,)
        if isinstance(name, str) and name in self._settings.targets:
            return (self._settings.targets[name],)
        if self._default_target is None:
            raise GiveUp("the event's context names a target that is not in `targets`")
        return (
            self._default_target,
            "The event's context names another target, which is not in `targets`",
        )

    @abstractmethod
    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Send a message.

        Raises:
            Retry: a temporary fault.
            GiveUp: a permanent fault.
        """

    @property
    def _targets(self) -> list[str]:
        """All possible targets."""
        named = self._settings.targets.values()
        return list(
            dict.fromkeys([self._default_target, *named] if self._default_target else named)
        )

    async def _try(self, work: Callable[[], Awaitable[object]], deadline: float) -> str | None:
        """Run an optional step; returns the error's text, or None."""
        waited = False
        while True:
            try:
                async with asyncio.timeout(max(deadline - _RESERVED_S - self._clock(), 0.0)):
                    await work()
            except (MediaUnusable, GiveUp) as error:
                return str(error)
            except Retry as error:
                # The service asks to wait: the next request waits.
                if waited or not error.pause:
                    return str(error)
                waited = True
            except TimeoutError:
                return "it took too long"
            else:
                return None


class HttpChannel(Channel[Chat]):
    """A chat handler that calls its service over HTTP, and may upload results.

    Args:
        allow: private targets that may be called.
        upload: largest upload in bytes.
        waits: reads how long the service asks to wait.
        options: those of `Channel`.
    """

    def __init__(
        self,
        settings: Chat,
        default_target: str | None,
        template: Template | None,
        *,
        allow: Sequence[str],
        upload: int = 0,
        waits: Waits = retry_after_header,
        **options: Any,
    ) -> None:
        super().__init__(settings, default_target, template, **options)
        self._http = ChatClient(allow, waits, clock=self._clock, sleep=self._sleep)
        self._media_reader = MediaReader(allow, upload)

    async def close(self) -> None:
        """Close the connections; the next event opens new ones."""
        await self._http.close()
        await self._media_reader.close()


def parse_settings(
    model: type[Chat],
    name: str,
    settings: Mapping[str, Any],
    *,
    target_key: str,
    check_target: Callable[[str], object],
    more_faults: Callable[[Chat], Sequence[str]] = lambda _: (),
) -> tuple[Chat, Template | None]:
    """Parse a chat handler's settings, and compile its template.

    Args:
        model: the settings model.
        name: the handler's name.
        settings: its section, without the dispatcher's keys.
        target_key: key of the default target.
        check_target: raises ValueError, with what was expected, for a value that is not a target.
        more_faults: returns further faults, each a key and what was expected.

    Raises:
        SettingsError: with all faults, without values that may be secret.
    """
    parsed = read(model, name, settings)
    faults = list(more_faults(parsed))
    if not parsed.targets and getattr(parsed, target_key) is None:
        faults.append(
            f"{target_key}: missing, expected {model.model_fields[target_key].description}"
        )
    if parsed.targets and parsed.target_from is None:
        faults.append(
            "target_from: missing, expected the key of the event's context that names a target"
        )
    if parsed.target_from is not None and not parsed.targets:
        faults.append("targets: missing, expected a table of the targets that a context may name")
    for value in parsed.targets.values():
        try:
            check_target(value)
        except ValueError as error:
            faults.append(f"targets: '…', each expected to be {error}")
            break
    template = None
    if parsed.template is not None:
        try:
            template = Template(parsed.template)
        except TemplateUnusable as error:
            faults.append(f"template: {error}")
        except ImportError:
            faults.append(
                "template: needs Jinja; install it with pip install 'wavehook[templates]'"
            )
    if faults:
        raise SettingsError([f"handlers.{name}.{fault}" for fault in faults])
    return parsed, template
