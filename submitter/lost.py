"""Submissions whose answer was lost, matched with the API's history by model, time and input.

To take a stranger's task for ours would give its result to the wrong caller, and to believe that
there is none would pay twice. So what is not clear stays open: a webhook, which carries the
submission's key, may tell; so may the next look, when others are settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from submitter.ledger.base import Entry
from submitter.prediction import JSON, Prediction


class Likeness(Enum):
    """How well a task of the history fits a submission's input."""

    #: All that was sent is there again.
    SAME = auto()
    #: The history does not show the input, or shows other addresses of files.
    PERHAPS = auto()
    #: Something that was sent is shown as something else.
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to.

    Attributes:
        found: tasks by the key of their submission.
        unclear: keys of submissions that one of several tasks may belong to.
    """

    found: Mapping[str, Prediction] = field(default_factory=dict)
    unclear: frozenset[str] = frozenset()


def match(
    doubtful: Sequence[Entry],
    tasks: Sequence[Prediction],
    *,
    rivals: Sequence[Entry] = (),
    skew: float,
) -> Looked:
    """Find the tasks of submissions.

    Args:
        doubtful: submissions of one model without a task.
        tasks: of that model in the history, without those that a submission has already.
        rivals: submissions that are on their way just now: a task may be theirs.
        skew: seconds by which our clock and the API's may differ.
    """
    found: dict[str, Prediction] = {}
    unclear: set[str] = set()
    left = {task.id: task for task in tasks}
    on_their_way = {rival.digest for rival in rivals}
    for entry in sorted(doubtful, key=lambda each: each.sent_at):
        same = [task for task in left.values() if _fits(entry, task, skew) is Likeness.SAME]
        if same and entry.digest in on_their_way:
            unclear.add(entry.key)
        elif same:
            task = min(same, key=lambda each: _distance(entry, each))
            found[entry.key] = left.pop(task.id)
    open_still = [entry for entry in doubtful if entry.key not in found.keys() | unclear]
    perhaps = {
        entry.key: [id for id, task in left.items() if _fits(entry, task, skew) is Likeness.PERHAPS]
        for entry in [*open_still, *rivals]
    }
    for entry in open_still:
        ids = perhaps[entry.key]
        if len(ids) == 1 and sum(ids[0] in others for others in perhaps.values()) == 1:
            found[entry.key] = left[ids[0]]
        elif ids:
            unclear.add(entry.key)
    return Looked(found, frozenset(unclear))


def likeness(sent: Mapping[str, JSON], shown: Mapping[str, JSON] | None) -> Likeness:
    """Compare what was sent with what the history shows, which may hold defaults as well."""
    if shown is None:
        return Likeness.PERHAPS
    best = Likeness.SAME
    for name, value in sent.items():
        if name not in shown or (_plain(value) != _plain(shown[name]) and _is_link(value)):
            best = Likeness.PERHAPS
        elif _plain(value) != _plain(shown[name]):
            return Likeness.OTHER
    return best


def _fits(entry: Entry, task: Prediction, skew: float) -> Likeness:
    if task.created_at is not None:
        created = task.created_at.timestamp()
        if not entry.sent_at - skew <= created <= entry.until + skew:
            return Likeness.OTHER
    return likeness(entry.input, task.input)


def _distance(entry: Entry, task: Prediction) -> float:
    return abs(task.created_at.timestamp() - entry.sent_at) if task.created_at else 0.0


def _plain(value: JSON) -> JSON:
    """Text without what a server may tidy up."""
    return " ".join(value.split()) if isinstance(value, str) else value


def _is_link(value: JSON) -> bool:
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))
