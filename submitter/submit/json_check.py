"""Check that a value is JSON that every parser reads alike."""

from __future__ import annotations

import math

from submitter.errors import Fault

MAX_DEPTH = 32
"""Levels of nested objects and arrays."""

MAX_VALUES = 10_000
"""Values in one input."""

_MAX_NAME_CHARS = 64


def json_faults(value: object, path: str = "") -> tuple[list[Fault], bool]:
    """Find the values that Python's JSON encoder would refuse or change.

    Args:
        value: anything.
        path: of the value in the input.

    Returns:
        The faults, and whether the value is safe to walk: names are text, and depth and size are
        within the limits.
    """
    faults: list[Fault] = []
    sound = True
    # A work list instead of recursion also ends for a value that contains itself.
    left = [(value, path, 0)]
    count = 0
    while left:
        item, where, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH:
            return [*faults, Fault(where, f"nests deeper than {MAX_DEPTH} levels")], False
        if count > MAX_VALUES:
            return [*faults, Fault(path or "input", f"holds more than {MAX_VALUES} values")], False
        members: list[tuple[object, str, int]] = []
        if isinstance(item, dict):
            for name, member in item.items():
                inside = member_path(where, name)
                if isinstance(name, str) and _encodable(name):
                    members.append((member, inside, depth + 1))
                else:
                    faults.append(Fault(inside, "has a name that is not text"))
                    sound = False
        elif isinstance(item, list):
            members = [(member, member_path(where, i), depth + 1) for i, member in enumerate(item)]
        elif problem := _problem(item):
            faults.append(Fault(where or "input", problem))
        left.extend(reversed(members))
    return faults, sound


def member_path(path: str, member: object) -> str:
    """The path of one member of an object (by name) or of an array (by index)."""
    if isinstance(member, int) and not isinstance(member, bool):
        return f"{path}[{member}]"
    name = member if isinstance(member, str) else type(member).__name__
    if not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable():
        name = ascii(name[:_MAX_NAME_CHARS])
    return f"{path}.{name}" if path else name


def _problem(value: object) -> str | None:
    if isinstance(value, str):
        return None if _encodable(value) else "holds half a character (a lone surrogate)"
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if abs(value) < 2**64 else "is beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not a finite number"
    return f"is a {type(value).__name__}, which JSON does not have"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
