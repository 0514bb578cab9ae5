"""What a person asks of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Wanted:
    """The words of one command.

    Attributes:
        inputs: the file with the rows.
        model: the model's id.
        out: where the results go.
        name: of the batch; None: the path of `out`.
        max_cost: USD for all rows that are still to be paid for.
        context: of rows that bring none of their own.
        webhook: whether to ask for webhooks.
        retry: whether to pay again for what is shown to have failed.
    """

    inputs: Path
    model: str
    out: Path
    name: str | None = None
    max_cost: float | None = None
    context: JSON = field(default=None, repr=False)
    webhook: bool = True
    retry: bool = False
