"""`apprise` handler: a message to any service that Apprise supports; extra `apprise`.

    [handlers.team]
    use = "apprise"
    url = "env:APPRISE_URL"     # or a list: mailtos://…, matrixs://…, ntfys://…

https://appriseit.com lists the URLs. The message is text with links, as long as the service allows.
Apprise calls the services itself, without the SSRF guard of `receiver.outbound`.

| services that accept the message | outcome |
|---|---|
| all | done |
| some | done, because a retry would reach these again; the result counts the others |
| none | retry |
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from receiver.errors import Retry
from receiver.handlers.chat.base import Channel, OutgoingMessage, parse_settings
from receiver.handlers.chat.message import Message
from receiver.handlers.chat.settings import ChatSettings
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import fit_lines, fullwidth, join, units
from receiver.handlers.settings import SomeTexts
from submitter.prediction import JSON

if TYPE_CHECKING:
    from receiver.handlers.chat.text import Span

_MAX_TEXT_UNITS = 4000


def _service(url: str) -> str:
    """Check that Apprise knows a URL."""
    import apprise

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        # Apprise loads its services now, and some of their imports warn.
        known = apprise.Apprise.instantiate(url) is not None
    if not known:
        raise ValueError("a URL of Apprise, such as mailtos://user:password@example.com")
    return url


def _services(urls: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for url in urls or ():
        _service(url)
    return urls


class AppriseSettings(ChatSettings):
    """Settings of the handler."""

    url: Annotated[SomeTexts | None, AfterValidator(_services)] = Field(
        default=None, repr=False, description="a URL of Apprise, or a list of them"
    )


class Apprise(Channel[AppriseSettings]):
    """Handler that sends messages through Apprise."""

    def __init__(
        self, settings: AppriseSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(
            settings, "\n".join(settings.url) if settings.url else None, template, **options
        )

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Send to each service, in a thread, because Apprise blocks."""
        urls = outgoing.target.split("\n")
        accepted = await asyncio.to_thread(
            _send_all, urls, outgoing.message, outgoing.template_spans
        )
        if not any(accepted):
            raise Retry("no service accepted the message; Apprise does not report the reason")
        return {"told": sum(accepted), "not_told": len(accepted) - sum(accepted)}

    async def check(self) -> str:
        """Check the URLs; a service itself can be tested by a message only."""
        import apprise

        urls = [url for target in self._targets for url in target.split("\n")]
        services = [apprise.Apprise.instantiate(url) for url in urls]
        names = sorted({str(each.service_name) for each in services if each})
        return f"Apprise knows {', '.join(names)}; a service itself can be tested by a message only"


def create(name: str, settings: Mapping[str, Any]) -> Apprise:
    """Build the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: Apprise is missing.
    """
    import apprise  # noqa: F401 - a missing package shows at start-up

    # Apprise logs URLs with passwords; the dispatch's result has the failures.
    logging.getLogger("apprise").propagate = False
    return Apprise(
        *parse_settings(AppriseSettings, name, settings, target_key="url", check_target=_service)
    )


def _send_all(urls: list[str], message: Message, template_spans: list[Span] | None) -> list[bool]:
    """Send to each service separately, so that each success is known."""
    from apprise import Apprise as Sender
    from apprise import NotifyFormat

    accepted = []
    for url in urls:
        sender = Sender()
        sender.add(url)
        try:
            service = sender[0]
            body = text(
                message, template_spans, room(message, service.body_maxlen, service.title_maxlen)
            )
            sent = bool(
                sender.notify(body=body, title=message.headline, body_format=NotifyFormat.TEXT)
            )
        except Exception:  # noqa: BLE001 - a plug-in may raise anything, with its URL in the text
            sent = False
        accepted.append(sent)
    return accepted


def room(message: Message, body: int, title: int) -> int:
    """Units of text that a service accepts, by its limits for body and title."""
    above = units(message.headline)
    # Without a title, the headline is put above the text.
    return min(body, _MAX_TEXT_UNITS) - (above + 2 if above > title else 0)


def text(message: Message, template_spans: list[Span] | None, limit: int) -> str:
    """Message as plain text with links.

    Args:
        message: the message.
        template_spans: text of the operator's template; None for the standard text.
        limit: in UTF-16 units.
    """
    notes = [(0, fullwidth(note)) for note in message.notes]
    own = (
        join(template_spans, fullwidth, limit - sum(units(note) + 1 for _, note in notes))
        if template_spans
        else ""
    )
    if own:
        return "\n".join([own, *(note for _, note in notes)])
    lines = [(3, fullwidth(message.prompt))] if message.prompt else []
    lines += [(2, f"{name}: {fullwidth(value)}") for name, value in message.facts]
    lines += [*notes, (4, f"Task {fullwidth(message.task)}")]
    outputs = [
        f"{each.label}: {each.url} ({each.fate})" if each.url else f"{each.label}: {each.fate}"
        for each in message.outputs
    ]
    return fit_lines(lines, outputs, message.more, limit)
