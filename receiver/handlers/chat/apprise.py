"""`apprise`: a message to any of the services that Apprise knows; extra `apprise`.

    [handlers.team]
    use = "apprise"
    url = "env:APPRISE_URL"     # or a list: mailtos://…, matrixs://…, ntfys://…

https://appriseit.com has the URLs. The message is text with links, as long as the service takes.
Apprise calls the services itself: `safe_http` does not stand between.

| what Apprise says | what follows |
|---|---|
| all took it | done |
| some took it | done; a new attempt would tell them again. The result says how many did not |
| none did | again by the retry policy |
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

_LONGEST = 4000


def _service(url: str) -> str:
    """Refuse what Apprise does not understand."""
    import apprise

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        # It loads its services now, and some of them warn of what they import.
        known = apprise.Apprise.instantiate(url) is not None
    if not known:
        raise ValueError("a URL of Apprise, such as mailtos://user:password@example.com")
    return url


def _services(urls: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for url in urls or ():
        _service(url)
    return urls


class AppriseSettings(ChatSettings):
    """The handler's own settings."""

    url: Annotated[SomeTexts | None, AfterValidator(_services)] = Field(
        default=None, repr=False, description="a URL of Apprise, or a list of them"
    )


class Apprise(Channel[AppriseSettings]):
    """Tells services through Apprise."""

    def __init__(
        self, settings: AppriseSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(
            settings, "\n".join(settings.url) if settings.url else None, template, **options
        )

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Tell each service; Apprise blocks, and so works in a thread."""
        urls = outgoing.target.split("\n")
        told = await asyncio.to_thread(_tell, urls, outgoing.message, outgoing.template_spans)
        if not any(told):
            raise Retry("no service took it; Apprise does not say why")
        return {"told": sum(told), "not_told": len(told) - sum(told)}

    async def check(self) -> str:
        """Apprise understands the URLs; a service can only be tried by a message."""
        import apprise

        urls = [url for target in self._targets for url in target.split("\n")]
        services = [apprise.Apprise.instantiate(url) for url in urls]
        names = sorted({str(each.service_name) for each in services if each})
        return f"Apprise knows {', '.join(names)}; whether they take it, only a message shows"


def create(name: str, settings: Mapping[str, Any]) -> Apprise:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: Apprise is missing.
    """
    import apprise  # noqa: F401 - where it is missing, that shows at start

    # It logs URLs, and with them passwords (F16); what fails, the dispatch says.
    logging.getLogger("apprise").propagate = False
    return Apprise(
        *parse_settings(AppriseSettings, name, settings, target_key="url", check_target=_service)
    )


def _tell(urls: list[str], message: Message, template_spans: list[Span] | None) -> list[bool]:
    """Tell each service by itself, so that it is known who was told."""
    from apprise import Apprise as Sender
    from apprise import NotifyFormat

    told = []
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
        except Exception:  # noqa: BLE001 - a service of anybody's; its words may hold its URL
            sent = False
        told.append(sent)
    return told


def room(message: Message, body: int, title: int) -> int:
    """How much text a service has room for, by what it takes for a body and a title."""
    above = units(message.headline)
    # Where it takes no title, the headline stands above the text.
    return min(body, _LONGEST) - (above + 2 if above > title else 0)


def text(message: Message, template_spans: list[Span] | None, limit: int) -> str:
    """The message as plain text, with links.

    Args:
        message: what it says.
        template_spans: its text by the operator's template; None: ours.
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
