"""Matching of submits without a response to tasks of the API's history: model, time and input.

A wrong match gives a result to the wrong caller, and a missed one bills twice. So an unclear case
stays open: a webhook, which carries the submission's key, settles it, or a later look does, when
other submissions are settled.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from submitter.ledger.base import Entry
from submitter.prediction import JSON, Prediction
from submitter.submit.files import is_url


class MatchQuality(IntEnum):
    """Degree to which a task of the history fits a submission's input."""

    #: The history shows another value for a field that was sent.
    OTHER = 0
    #: The history does not show the input, or shows other addresses of files.
    PERHAPS = 1
    #: The history shows everything that was sent.
    SAME = 2


@dataclass(frozen=True, slots=True)
class HistoryMatches:
    """Result of one look.

    Attributes:
        found: tasks by the key of their submission.
        unclear: keys of submissions that several tasks may belong to.
    """

    found: Mapping[str, Prediction] = field(default_factory=dict)
    unclear: frozenset[str] = frozenset()


def match(
    doubtful: Sequence[Entry],
    tasks: Sequence[Prediction],
    *,
    rivals: Sequence[Entry] = (),
    skew: float,
) -> HistoryMatches:
    """Find the tasks of submissions.

    Args:
        doubtful: submissions of one model without a task.
        tasks: of that model in the history, except those that belong to a submission already.
        rivals: submits in flight: a task may belong to them.
        skew: seconds by which our clock and the API's may differ.
    """
    # The longest input chooses first: its task would fit a shorter input too.
    order = [*rivals, *sorted(doubtful, key=lambda each: (-len(each.input), each.sent_at))]
    same, perhaps = _candidates(order, tasks, skew)
    held = _assign(same)
    # A task that shows one submission's input belongs to no other.
    shown = set().union(*same.values())
    open_still = [key for key in same if key not in held]
    claims = {key: [id for id in perhaps[key] if id not in shown] for key in open_still}
    wanted = Counter(id for ids in claims.values() for id in ids)
    of_rivals = set().union(*(same[rival.key] for rival in rivals))
    by_id = {task.id: task for task in tasks}
    found: dict[str, Prediction] = {}
    unclear: set[str] = set()
    for entry in doubtful:
        key = entry.key
        if key in held:
            found[key] = by_id[held[key]]
        elif not of_rivals.isdisjoint(same[key]):
            unclear.add(key)
        elif len(claims[key]) == 1 and wanted[claims[key][0]] == 1:
            found[key] = by_id[claims[key][0]]
        elif claims[key]:
            unclear.add(key)
    return HistoryMatches(found, frozenset(unclear))


def clusters(entries: Sequence[Entry], *, skew: float) -> list[list[Entry]]:
    """Split submissions so that no task of the history can belong to two parts.

    Args:
        entries: of any models.
        skew: as for `match`.
    """
    parts: list[list[Entry]] = []
    end = -math.inf
    for entry in sorted(entries, key=lambda each: (each.model, each.sent_at)):
        if not parts or parts[-1][0].model != entry.model or entry.sent_at - skew > end:
            parts.append([])
            end = -math.inf
        parts[-1].append(entry)
        end = max(end, entry.until + skew)
    return parts


def match_quality(sent: Mapping[str, JSON], shown: Mapping[str, JSON] | None) -> MatchQuality:
    """Compare the sent input with the shown one, which may contain defaults as well."""
    if shown is None:
        return MatchQuality.PERHAPS
    fits = [
        _compare(value, shown[name]) if name in shown else MatchQuality.PERHAPS
        for name, value in sent.items()
    ]
    return min(fits, default=MatchQuality.SAME)


_Ids = dict[str, list[str]]


def _candidates(
    entries: Sequence[Entry], tasks: Sequence[Prediction], skew: float
) -> tuple[_Ids, _Ids]:
    """Tasks that fit for certain, and perhaps, by submission key; the nearest in time first."""
    same: _Ids = {}
    perhaps: _Ids = {}
    created = {task.id: task.created_at.timestamp() for task in tasks if task.created_at}
    for entry in entries:
        early, late = entry.sent_at - skew, entry.until + skew
        near = [
            (abs(at - entry.sent_at), task)
            for task in tasks
            if task.model in (None, entry.model)
            and early <= (at := created.get(task.id, entry.sent_at)) <= late
        ]
        near.sort(key=lambda each: each[0])
        fits = [(task.id, match_quality(entry.input, task.input)) for _, task in near]
        same[entry.key] = [id for id, fit in fits if fit is MatchQuality.SAME]
        perhaps[entry.key] = [id for id, fit in fits if fit is MatchQuality.PERHAPS]
    return same, perhaps


def _assign(candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Maximum matching of submissions to tasks; earlier submissions are never left out."""
    held: dict[str, str] = {}
    owner: dict[str, str] = {}
    tried: set[str] = set()
    for first in candidates:
        wanted_by: dict[str, str] = {}
        asking = deque([first])
        while asking:
            key = asking.popleft()
            new = [id for id in candidates[key] if id not in wanted_by and id not in tried]
            wanted_by.update(dict.fromkeys(new, key))
            free = next((id for id in new if id not in owner), None)
            if free is not None:
                _hand_on(free, wanted_by, held, owner)
                wanted_by.clear()
                break
            asking.extend(owner[id] for id in new)
        # These tasks cannot be freed for any later submission either.
        tried.update(wanted_by)
    return held


def _hand_on(
    free: str, wanted_by: Mapping[str, str], held: dict[str, str], owner: dict[str, str]
) -> None:
    """Reassign along the augmenting path: each submission takes the next task."""
    id: str | None = free
    while id is not None:
        key = wanted_by[id]
        left = held.get(key)
        held[key], owner[id] = id, key
        id = left


def _compare(sent: JSON, shown: JSON) -> MatchQuality:
    if isinstance(sent, dict) and isinstance(shown, dict):
        return match_quality(sent, shown)
    if isinstance(sent, list) and isinstance(shown, list) and len(sent) == len(shown):
        return min(map(_compare, sent, shown), default=MatchQuality.SAME)
    if _equal(sent, shown):
        return MatchQuality.SAME
    return MatchQuality.PERHAPS if shown is None or is_url(sent) else MatchQuality.OTHER


def _equal(sent: JSON, shown: JSON) -> bool:
    """True if they differ only in what a server may normalize: spaces, `5`, `5.0`, `"5"`."""
    if isinstance(sent, str) and isinstance(shown, str):
        return sent.split() == shown.split()
    one, other = _number(sent), _number(shown)
    if one is not None and other is not None:
        return math.isclose(one, other, rel_tol=1e-6)
    return sent == shown


def _number(value: JSON) -> float | None:
    if isinstance(value, str | int | float):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    return None
