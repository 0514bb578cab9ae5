"""The calls that the simulator tells apart and counts."""

from __future__ import annotations

import enum
from collections import Counter
from typing import NamedTuple


class Kind(enum.StrEnum):
    """What a call asks for."""

    #: A new task.
    SUBMIT = "submit"
    #: How one task stands.
    RESULT = "result"
    #: Pages of past tasks.
    HISTORY = "history"
    #: Tasks to be forgotten.
    DELETE = "delete"
    #: The catalogue.
    MODELS = "models"
    #: What a task would cost.
    PRICE = "price"
    #: What is left on the account.
    BALANCE = "balance"
    #: A place to put a file.
    UPLOAD = "upload"
    #: The bytes of a file.
    PUT = "put"
    #: What webhooks are signed with.
    SECRET = "secret"  # noqa: S105 - a name


class Call(NamedTuple):
    """One call that came.

    Attributes:
        kind: what it asks for.
        number: from 0, among the calls of its kind, refused ones too.
    """

    kind: Kind
    number: int


class Calls:
    """Counts calls as they come."""

    def __init__(self) -> None:
        self._counts: Counter[Kind] = Counter()

    def received(self, kind: Kind) -> Call:
        """Number a call."""
        number = self._counts[kind]
        self._counts[kind] += 1
        return Call(kind, number)

    def counts(self) -> dict[str, int]:
        """How many of each kind came."""
        return {kind.value: self._counts[kind] for kind in Kind}
