"""What all chat handlers do alike: the message, its place, its words, and what may fail.

The text goes out first. Whatever follows it, such as an upload, may fail without a new attempt:
that would send the text again. What failed stands in the dispatch's result.

A chat handler's settings as they are checked at the start: all faults at once.
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
from receiver.handlers.chat.http import Clock, Sleep
from receiver.handlers.chat.media import Unfit
from receiver.handlers.chat.message import Message, compose, lookup
from receiver.handlers.chat.settings import Chat
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.template import Unfit as UnfitTemplate
from receiver.handlers.chat.text import Span
from receiver.handlers.settings import read
from submitter.prediction import JSON

_RESERVE = 2.0
"""Seconds before a run's deadline at which what may fail is given up: the run must end well."""


@dataclass(frozen=True, slots=True)
class Post:
    """A message on its way.

    Attributes:
        message: what it says.
        words: its text by the operator's template; None where ours is used.
        target: the setting's value: where it goes.
        attempt: of the dispatch, from 1.
        since: Unix seconds; it cannot have been sent before.
        deadline: Unix seconds.
    """

    message: Message
    words: list[Span] | None
    target: str
    attempt: int
    since: float
    deadline: float


class Channel(ABC, Generic[Chat]):
    """A chat handler.

    Attributes:
        rules: of the dispatcher, where the section has none; an upload takes its time.

    Args:
        settings: its own.
        usual: where a message goes that names no other place; None: nowhere.
        template: the operator's, where there is one.
        clock: Unix seconds.
        sleep: waits so many seconds.
    """

    rules: ClassVar[Mapping[str, str]] = {"timeout": "2m"}

    def __init__(
        self,
        settings: Chat,
        usual: str | None,
        template: Template | None = None,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._usual = usual
        self._template = template
        self._clock = clock
        self._sleep = sleep

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON]:
        """Send the message of an event; the result says where it went.

        Raises:
            Retry: the service could not take it.
            GiveUp: it never will, or there is no place for it.
        """
        target, *notes = self._place(event)
        if target is None:
            # Nobody asked to be told.
            return {"sent": False}
        message = compose(event, context, self._clock(), self._settings)
        words = None
        if self._template is not None:
            words = self._template.render(message, event)
            if words is None:
                notes.append("The template could not be rendered; this is the standard message")
        message = replace(message, notes=(*message.notes, *notes))
        result = await self.deliver(
            Post(message, words, target, context.attempt, event.received_at, context.deadline)
        )
        return {"sent": True, **result}

    def _place(self, event: Event) -> tuple[str | None, *tuple[str, ...]]:
        """Where the message goes, and what is to be noted about that.

        What a context names stands in no error, and in no place that it was not meant for.
        """
        name = lookup(event.context, self._settings.target_from)
        if name is None:
            return (self._usual,)
        if isinstance(name, str) and name in self._settings.targets:
            return (self._settings.targets[name],)
        if self._usual is None:
            raise GiveUp("the context names a place that is none of `targets`")
        return (self._usual, "The context names another place, which is none of `targets`")

    @abstractmethod
    async def deliver(self, post: Post) -> dict[str, JSON]:
        """Send a message.

        Raises:
            Retry: the service could not take it.
            GiveUp: it never will.
        """

    @property
    def _targets(self) -> list[str]:
        """Every place that a message may go to."""
        named = self._settings.targets.values()
        return list(dict.fromkeys([self._usual, *named] if self._usual else named))

    async def _try(self, work: Callable[[], Awaitable[object]], deadline: float) -> str | None:
        """Do what a message can be without; says why where it failed."""
        last = False
        while True:
            try:
                async with asyncio.timeout(max(deadline - _RESERVE - self._clock(), 0.0)):
                    await work()
            except (Unfit, GiveUp) as error:
                return str(error)
            except Retry as error:
                # The service asks to wait, and the next request will.
                if last or not error.pause:
                    return str(error)
                last = True
            except TimeoutError:
                return "it took too long"
            else:
                return None


def start(
    model: type[Chat],
    name: str,
    settings: Mapping[str, Any],
    *,
    usual: str,
    fits: Callable[[str], object],
    others: Callable[[Chat], Sequence[str]] = lambda _: (),
) -> tuple[Chat, Template | None]:
    """Check a chat handler's settings, and compile its template.

    Args:
        model: what they must look like.
        name: the handler's name.
        settings: its section, without the dispatcher's keys.
        usual: the key of the place for messages that name no other.
        fits: raises ValueError, saying what was expected, for what is no such place.
        others: says what else is wrong: a key, and what was expected.

    Raises:
        SettingsError: with all faults, each without the value of what may be secret.
    """
    chosen = read(model, name, settings)
    faults = list(others(chosen))
    if not chosen.targets and getattr(chosen, usual) is None:
        faults.append(f"{usual}: missing, expected {model.model_fields[usual].description}")
    if chosen.targets and chosen.target_from is None:
        faults.append(
            "target_from: missing, expected the key of the event's context that names a target"
        )
    if chosen.target_from is not None and not chosen.targets:
        faults.append("targets: missing, expected a table of the places that a context may name")
    for value in chosen.targets.values():
        try:
            fits(value)
        except ValueError as error:
            faults.append(f"targets: '…', each expected to be {error}")
            break
    template = None
    if chosen.template is not None:
        try:
            template = Template(chosen.template)
        except UnfitTemplate as error:
            faults.append(f"template: {error}")
        except ImportError:
            faults.append("template: needs Jinja; pip install 'wavehook[templates]' brings it")
    if faults:
        raise SettingsError([f"handlers.{name}.{fault}" for fault in faults])
    return chosen, template
