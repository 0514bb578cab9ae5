"""What is to be submitted, and what can be wrong with it besides the input."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from submitter.errors import BadInput, Fault
from submitter.ledger.base import Entry
from submitter.prediction import JSON
from submitter.submit.files import PreparedInput

MAX_KEY_BYTES = 200
"""Bytes of a key; it travels in the webhook's URL."""


@dataclass(frozen=True, slots=True)
class PreparedSubmit:
    """What is to be submitted, checked and not yet sent.

    Attributes:
        key: of the submission.
        model: the model's id.
        prepared: the input, with the local files it names.
        digest: of model and input as given.
        context: for the handlers.
        webhook: True: to the receiver; a URL: to there; False: nowhere.
        max_cost: USD; None: no price is asked for.
        cost: USD, where it is known already.
    """

    key: str
    model: str
    prepared: PreparedInput = field(repr=False)
    digest: str
    context: JSON = field(default=None, repr=False)
    webhook: bool | str = field(default=True, repr=False)
    max_cost: float | None = None
    cost: float | None = None


def key_fault(key: object) -> Fault | None:
    """What keeps a value from being a key, if anything; a number of one's own is a likely one."""
    if isinstance(key, str) and key.isprintable() and 0 < len(key.encode()) <= MAX_KEY_BYTES:
        return None
    return Fault("key", f"must be 1 to {MAX_KEY_BYTES} bytes of printable text")


def cap_fault(max_cost: object) -> Fault | None:
    """What keeps a value from being a cap, if anything; a text is a likely one."""
    # NaN is above nothing, and would let every price pass.
    if max_cost is None or (isinstance(max_cost, int | float) and max_cost >= 0):
        return None
    return Fault("max_cost", "must be a number of USD, 0 or more")


def digest(model: str, prepared: PreparedInput) -> str:
    """Of model and input as they were given, files by their content."""
    given = json.dumps([model, prepared.input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(given.encode()).hexdigest()


def same(entry: Entry, order: PreparedSubmit) -> None:
    """Refuse a key that was used for something else.

    Raises:
        BadInput: it was.
    """
    if entry.digest != order.digest:
        raise BadInput([Fault("key", "was used for another model or input; choose a new one")])
