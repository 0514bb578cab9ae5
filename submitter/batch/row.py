"""One row of a batch, and the keys that make sure that it is paid for once."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field

from submitter.prediction import JSON


class Standing(enum.StrEnum):
    """How far a row is."""

    #: It was not sent, as far as is known.
    WAITING = "waiting"
    #: It was sent, and has not ended.
    RUNNING = "running"
    #: Its task ended well.
    COMPLETED = "completed"
    #: Its task ended badly.
    FAILED = "failed"
    #: The API refused it, and created nothing.
    REJECTED = "rejected"
    #: It cannot be sent as it is.
    INVALID = "invalid"


@dataclass(slots=True)
class Row:
    """One row; of many there are many, so that it holds little.

    Attributes:
        number: from 1.
        line: where it begins in the file, from 1.
        text: its input as JSON; empty where it cannot be read.
        key: of its submission, which names what is paid for once.
        context: for the handlers.
        standing: how far it is.
        error: why it is INVALID or REJECTED.
        code: the API's code beside it.
        digest: of what was paid for under its key; None where nothing was.
        offer: which of the batch's prices is its own.
        cost: USD; None where nobody knows.
    """

    number: int
    line: int
    text: str = field(repr=False)
    key: str
    context: JSON = field(default=None, repr=False)
    standing: Standing = Standing.WAITING
    error: str | None = field(default=None, repr=False)
    code: int | str | None = None
    digest: str | None = None
    offer: int | None = None
    cost: float | None = None


class Keys:
    """Gives rows their keys.

    Args:
        name: of the batch.
        model: the model's id.
    """

    def __init__(self, name: str, model: str) -> None:
        whose = _digest(f"{name}\0{model}", 20)
        self.prefix = f"batch:{whose}:"
        self._given: dict[str, int] = {}

    def key(self, content: str) -> str:
        """The key of the next row with this content: equal rows are paid for one by one."""
        digest = _digest(content, 24)
        number = self._given[digest] = self._given.get(digest, 0) + 1
        return f"{self.prefix}{digest}:{number}"


def with_content(key: str, digest: str) -> str:
    """The key of a row that names the same files as before, with other content in them."""
    head, _, number = key.rpartition(":")
    occurrence = number.partition(".")[0]
    return f"{head}-{digest[:16]}:{occurrence}"


def following(key: str) -> str:
    """The key under which a row is paid for again, after its task of `key` ended badly."""
    head, _, number = key.rpartition(":")
    occurrence, _, generation = number.partition(".")
    return f"{head}:{occurrence}.{int(generation or 1) + 1}"


def _digest(text: str, length: int) -> str:
    # JSON may hold half a character, which no text file does.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
