"""A chat handler's settings as they are checked at the start: all faults at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from receiver.errors import SettingsError
from receiver.handlers.chat.settings import Chat
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.template import Unfit as UnfitTemplate
from receiver.handlers.settings import read


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
