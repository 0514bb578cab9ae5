"""Loading of handlers from settings and modules; all faults are reported at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from receiver.errors import SettingsError
from receiver.handlers.base import Factory, Handler, Installed, mask
from receiver.handlers.decorator import marked
from receiver.handlers.retry import describe
from receiver.handlers.settings import (
    NAME,
    NAME_EXPECTED,
    DispatchRules,
    HiddenText,
    explain,
    resolve,
)
from submitter.errors import suggest

GROUP = "wavehook.handlers"
"""The group of the entry points that `use` names."""

_MODULES = "WAVEHOOK_HANDLERS"


def install(
    sections: Mapping[str, Mapping[str, Any]], modules: str | Iterable[str] = ()
) -> list[Installed]:
    """Make all handlers of the settings and of the named modules.

    Args:
        sections: `[handlers.NAME]` by name.
        modules: names of modules with decorated functions; a text is split at commas.

    Raises:
        SettingsError: with all faults, among them duplicate names and unknown or circular `after`.
    """
    faults: list[str] = []
    installed: list[Installed] = []
    for name, settings in sections.items():
        try:
            installed.append(load_section(name, settings))
        except SettingsError as error:
            faults += error.faults
    try:
        installed += load_modules(modules)
    except SettingsError as error:
        faults += error.faults
    _raise_if(faults + _dependency_faults(installed, sections))
    return installed


def load_section(name: str, settings: Mapping[str, Any]) -> Installed:
    """Make the handler of one `[handlers.NAME]` section.

    Raises:
        SettingsError: with all faults, each with its key and what was expected.
    """
    prefix = f"handlers.{name}"
    if not isinstance(settings, Mapping):
        raise SettingsError([f"{prefix}: expected a table with at least `use`"])
    faults = [] if NAME.fullmatch(name) else [f"handlers: {name!r}, expected {NAME_EXPECTED}"]
    values: dict[str, Any] = {}
    unread: list[str] = []
    for key, value in settings.items():
        before = len(faults)
        values[key] = resolve(value, f"{prefix}.{key}", faults)
        if len(faults) > before:
            # Otherwise the missing value would be a second fault for the same cause.
            del values[key]
            unread.append(f"{prefix}.{key}")
    given = {key: values.pop(key) for key in DispatchRules.model_fields if key in values}
    rules = _rules(prefix, given, faults)
    handler: Handler | None = None
    try:
        use = values.pop("use", None)
        if f"{prefix}.use" not in unread:
            handler = _make(name, use, values)
    except SettingsError as error:
        faults += [
            fault
            for fault in error.faults
            if not any(fault.startswith((f"{key}:", f"{key}.")) for key in unread)
        ]
    if handler is None:
        raise SettingsError(faults)
    own = getattr(handler, "rules", {})
    if own and not faults:
        rules = _rules(prefix, {**own, **given}, faults)
    _raise_if(faults)
    return replace(rules.install(name, handler), hidden=_hidden(values))


def _rules(prefix: str, given: Mapping[str, Any], faults: list[str]) -> DispatchRules:
    try:
        return DispatchRules.model_validate(given)
    except ValidationError as error:
        faults += [explain(prefix, fault, DispatchRules) for fault in error.errors()]
        return DispatchRules()


def make(name: str, use: str, load: Callable[[], Factory], settings: Mapping[str, Any]) -> Handler:
    """Call a factory; its errors become faults of the handler's section.

    Args:
        name: the handler's name.
        use: the factory's name.
        load: imports and returns the factory.
        settings: the handler's own.

    Raises:
        SettingsError: with all faults.
        ImportError: a package is not installed.
    """
    prefix = f"handlers.{name}"
    try:
        handler = load()(name, settings)
    except SettingsError as error:
        raise SettingsError(
            [f if f.startswith("handlers.") else f"{prefix}: {f}" for f in error.faults]
        ) from None
    except ImportError:
        raise
    except ValidationError as error:
        # The model is not known here, nor which of its fields are secret: no value is shown.
        faults = [explain(prefix, {**fault, "input": HiddenText()}) for fault in error.errors()]
        raise SettingsError(faults) from None
    except Exception as error:  # noqa: BLE001 - any factory, which may raise anything
        text = mask(describe(error), _hidden(settings))
        raise SettingsError([f"{prefix}: {use!r} cannot be made ({text})"]) from None
    if not callable(handler):
        raise SettingsError([f"{prefix}.use: {use!r}, expected a factory of a handler"])
    return handler


def _make(name: str, use: object, settings: Mapping[str, Any]) -> Handler:
    """Find the entry point that `use` names, and call its factory."""
    prefix = f"handlers.{name}"
    entry = _entry(prefix, use)
    try:
        return make(name, entry.name, entry.load, settings)
    except ImportError as error:
        raise SettingsError([f"{prefix}.use: {_unimportable(entry, error)}"]) from None


def _entry(prefix: str, use: object) -> EntryPoint:
    # A distribution that is found twice on the path has the same entry point twice.
    found = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
    known = sorted({name for name, _ in found})
    expected = f"expected one of {', '.join(known)}"
    if use is None:
        raise SettingsError([f"{prefix}.use: missing, {expected}"])
    matches = [entry for (name, _), entry in found.items() if name == use]
    if len(matches) > 1:
        values = " and ".join(sorted(entry.value for entry in matches))
        raise SettingsError([f"{prefix}.use: {use!r} is offered by {values}, expected only one"])
    if not matches:
        raise SettingsError([f"{prefix}.use: {use!r}, {expected}{suggest(str(use), known)}"])
    return matches[0]


def _unimportable(entry: EntryPoint, error: ImportError) -> str:
    """The missing module, the reason, and the command that installs it."""
    module = f" the module {error.name!r}" if error.name else " a module"
    text = f"{entry.name!r} needs{module} ({describe(error)})"
    dist = entry.dist
    offered = dist.metadata.get_all("Provides-Extra") or [] if dist else []
    extra = next((e for e in (*entry.extras, entry.name) if e in offered), None)
    if dist and extra:
        text += f"; install it with: pip install '{dist.name}[{extra}]'"
    return text


def _hidden(value: Any) -> tuple[str, ...]:
    """The values from the environment and from files, at any depth."""
    if isinstance(value, HiddenText):
        return (str(value),)
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list):
        return ()
    return tuple(text for item in items for text in _hidden(item))


def load_modules(names: str | Iterable[str]) -> list[Installed]:
    """Find the decorated functions of modules, in the order of their definition.

    A function that several modules import is found once.

    Args:
        names: dotted names; a text is split at commas.

    Raises:
        SettingsError: with the modules that cannot be imported or hold none.
    """
    parts = names.split(",") if isinstance(names, str) else names
    modules = dict.fromkeys(part.strip() for part in parts if part.strip())
    if modules and not {"", str(Path.cwd())} & set(sys.path):
        # As other servers do. At the end, so that no file of the folder hides an installed module.
        sys.path.append(str(Path.cwd()))
    faults: list[str] = []
    found: dict[int, Installed] = {}
    for name in modules:
        try:
            module = import_module(name)
        except SettingsError as error:
            faults += [f"{_MODULES}: {name}: {fault}" for fault in error.faults]
        except Exception as error:  # noqa: BLE001 - any module, which may raise anything
            faults.append(
                f"{_MODULES}: {name!r} cannot be imported ({describe(error)}), "
                "expected a module with functions decorated by @on"
            )
        else:
            here = {id(value): it for value in vars(module).values() if (it := marked(value))}
            if not here:
                faults.append(f"{_MODULES}: {name!r}, expected functions decorated by @on in it")
            found |= here
    _raise_if(faults)
    return list(found.values())


def _dependency_faults(installed: list[Installed], sections: Iterable[str]) -> list[str]:
    """Faults between handlers: a duplicate name, and an unknown or circular `after`."""
    names = [one.name for one in installed]
    faults = [
        f"handlers.{name}: two handlers of this name, expected another name for one"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    # A section that failed is known too: its fault is reported already.
    known = {*names, *sections}
    for one in installed:
        for other in one.route.after:
            if other not in known:
                hint = suggest(other, sorted(known))
                faults.append(
                    f"handlers.{one.name}.after: {other!r}, expected the name of a handler{hint}"
                )
    try:
        TopologicalSorter({one.name: one.route.after for one in installed}).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        faults.append(f"handlers.{error.args[1][0]}.after: {circle}, expected no circle")
    return faults


def _raise_if(faults: list[str]) -> None:
    if faults:
        raise SettingsError(faults)
