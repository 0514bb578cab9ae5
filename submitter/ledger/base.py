"""The Ledger: every submission, written before the request and completed after it.

It is also where all who wait meet: whatever learns that a task has ended (the receiver, a
reconcile, a caller at its deadline) writes it here, and everybody else reads it here.

Its promises, kept by every backend:

1. `intend` is atomic over all processes: of parallel intents of one key exactly one is fresh, and
   the limits hold for all of them together.
2. What a method has returned from is durable.
3. States only go forward (see `State`); a late word changes nothing that is known better.
4. `finish` keeps the first result of a submission, and gives each its place in one order, so that
   a reader who remembers the last place it saw misses nothing.
5. `due` gives one entry to one asker at a time.
6. Time is an argument everywhere, in Unix seconds.

Every method raises `LedgerUnavailable` where it cannot do its work now, and has then changed
nothing, or will not be believed to have.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from submitter.prediction import JSON, Prediction

RATE_WINDOW_S = 60.0
"""Seconds of the window that `Limits.rate` counts in."""

MAX_PAUSE_S = 86400.0
"""Seconds of the longest pause; what ends later was written before a clock's step."""

MAX_OPEN_ENTRIES = 1_000_000
"""A limit that is none: more submissions than are ever open at once."""


class State(enum.StrEnum):
    """How much is known of a submission."""

    #: The request was about to go out; nothing else is known. To ACCEPTED, UNKNOWN, REJECTED,
    #: FINISHED.
    INTENDED = "intended"
    #: The answer was lost: the task may exist and be billed. To ACCEPTED, REJECTED, FINISHED.
    UNKNOWN = "unknown"
    #: The API named a task. To FINISHED; a guess that took another submission's task, to UNKNOWN.
    ACCEPTED = "accepted"
    #: Nothing was created; it may be intended again. To INTENDED, ACCEPTED, FINISHED: word of a
    #: task goes over the belief that there is none.
    REJECTED = "rejected"
    #: The task has ended, as its status says. For good.
    FINISHED = "finished"


OPEN = (State.INTENDED, State.UNKNOWN, State.ACCEPTED)
"""The states of what takes a place among the tasks in flight."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be sent.

    Attributes:
        key: unique to one thing that is to be paid once; printable, at most 200 characters.
        model: the model's id.
        input: exactly what is sent.
        digest: of model and input as they were given (a file by its content, not its address), so
            that a key that is used for something else is noticed.
        until: Unix seconds when the request is over, one way or the other; who finds the entry
            still INTENDED after it must doubt it.
        context: what the submitter wants to find again beside the result.
        webhook: whether a webhook was asked for, so that the inbox is to get the result.
        cost: USD by the price endpoint; None where nobody asked.
    """

    key: str
    model: str
    input: Mapping[str, JSON] = field(repr=False)
    digest: str
    until: float
    context: JSON = field(default=None, repr=False)
    webhook: bool = True
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission.

    Attributes:
        key: see `Intent`; as are `model`, `input`, `digest`, `until`, `context`, `webhook`, `cost`.
        state: how much is known of it.
        tries: how often it was intended.
        sent_at: Unix seconds of the latest intent.
        task_id: the API's id.
        guessed: the id was found in the history by model, time and input; a webhook that carries
            the key knows better.
        accepted_at: Unix seconds.
        expected_at: Unix seconds when the result is overdue.
        ask_at: Unix seconds of the next question to the API, of an INTENDED entry at first
            `until`; None where there is none to ask.
        asks: how often it was asked.
        reason: why it is UNKNOWN or REJECTED; never repeats an input.
        status: of the task, as far as it is known.
        finished_at: Unix seconds.
        place: in the order of finishing, from 1; 0 before.
        prediction: the result, once FINISHED.
        delivered: the receiver's inbox has the result.
    """

    key: str
    model: str
    input: Mapping[str, JSON] = field(repr=False)
    digest: str
    until: float
    state: State
    tries: int
    sent_at: float
    context: JSON = field(default=None, repr=False)
    webhook: bool = True
    cost: float | None = None
    task_id: str | None = None
    guessed: bool = False
    accepted_at: float | None = None
    expected_at: float | None = None
    ask_at: float | None = None
    asks: int = 0
    reason: str | None = None
    status: str | None = None
    finished_at: float | None = None
    place: int = 0
    prediction: Prediction | None = field(default=None, repr=False)
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be asked of the account; None is no limit.

    Attributes:
        rate: submits in any minute.
        in_flight: tasks that are open at once.
    """

    rate: int | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class IntentWritten:
    """The answer to `Ledger.intend`.

    Attributes:
        entry: as it stands now.
        fresh: this call wrote the intent, and its caller is the one to send; False where the key
            was there before and is not REJECTED.
    """

    entry: Entry
    fresh: bool


@dataclass(frozen=True, slots=True)
class LimitReached:
    """There is no room now; nothing was written.

    Attributes:
        until: Unix seconds when it is worth trying again; None: when a task has ended.
    """

    until: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """That a task has ended.

    Attributes:
        prediction: terminal.
        key: of the submission, where it is known; it goes over the task id.
        delivered: the inbox has it.
    """

    prediction: Prediction
    key: str | None = None
    delivered: bool = False


class Ledger(ABC):
    """The interface; the module's docstring holds its promises."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and bring an empty or older schema up to date. May be called twice.

        Raises:
            LedgerUnavailable: it cannot be opened.
            LedgerMismatch: a newer version made it, or something else.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked, end all subscriptions, let go of everything; also twice."""

    @abstractmethod
    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the event loop after every change of a state, whoever made it.

        At once where this process made it, within 0.2 seconds where another did. It may be called
        without a change. Returns what ends the subscription.
        """

    @abstractmethod
    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        """Write an intent before its request goes out.

        A key that is there and not REJECTED is left alone, whatever the limits say. One that is
        REJECTED is intended again, with all fields of `intent`. `Limits.rate` counts entries by
        `sent_at`, whatever became of them. `LimitReached.until` is None while as many tasks are
        open as may be; else it is when the rate allows the next, or the pause ends.
        """

    @abstractmethod
    async def accept(
        self,
        key: str,
        prediction: Prediction,
        now: float,
        *,
        expected_at: float,
        guessed: bool = False,
    ) -> Entry:
        """Record the task that the API named; the first question is due at `expected_at`.

        A FINISHED entry stays as it is, as does one that is ACCEPTED where this is a guess. A
        guess changes nothing either where another entry has this task; a word that is none takes
        the task from whoever guessed it, who is UNKNOWN again.

        Raises:
            KeyError: there is no such entry.
        """

    @abstractmethod
    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        """Take in a task that something else submitted, under the key `task:<task id>`.

        Where an entry has this task id already, that one is left alone and returned. It counts as
        sent and accepted when the API says that it was created. The prediction need not have
        ended; one that has is for `finish`.
        """

    @abstractmethod
    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:
        """INTENDED becomes UNKNOWN, to be looked for in the history at `ask_at`."""

    @abstractmethod
    async def reject(self, key: str, reason: str, now: float) -> bool:
        """INTENDED or UNKNOWN becomes REJECTED; False where it was neither."""

    @abstractmethod
    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        """Record results of tasks.

        Each goes to the entry of its key, whose task id it sets, and which takes the task from
        whoever guessed it, as in `accept`; else to the entry with its task id; else to none.
        Where a task was adopted beside its entry, both are finished. An entry that is FINISHED
        keeps its first result; `delivered` of the same task is kept wherever it is True.

        Returns:
            The entries that this call has finished, in order.
        """

    @abstractmethod
    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Entries by key, of those that are there."""

    @abstractmethod
    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        """Entries by task id, of those that are there."""

    @abstractmethod
    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        """Entries that are open, the longest sent first."""

    @abstractmethod
    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        """FINISHED entries whose place is greater, in order."""

    @abstractmethod
    async def last_place(self) -> int:
        """The place of the entry that was finished last; 0 where there was none."""

    @abstractmethod
    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        """Take open entries whose `ask_at` has come, the longest due first.

        Nobody else is given them for `hold` seconds, of which their `ask_at` tells; whoever takes
        them calls `postpone`, or finishes, accepts, doubts or rejects them.

        Args:
            now: Unix seconds.
            hold: seconds.
            limit: how many at most.
            keys: only these.
        """

    @abstractmethod
    async def postpone(self, key: str, ask_at: float) -> None:
        """Count one question that gave no answer, and set the time of the next."""

    @abstractmethod
    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        """Entries with a webhook, FINISHED before a time, whose result the inbox has not got."""

    @abstractmethod
    async def pause(self, until: float) -> None:
        """Write no intents before `until`, at most `MAX_PAUSE_S` ahead; never shortens a pause."""

    @abstractmethod
    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        """Seconds from accepted to finished of a model's latest completed tasks, latest first."""

    @abstractmethod
    async def overdue(self, now: float) -> int:
        """How many open entries are past the time when their result was expected."""

    @abstractmethod
    async def uploaded(self, digest: str, *, after: float) -> str | None:
        """The URL of content that was uploaded after a time (Unix seconds); see `upload`."""

    @abstractmethod
    async def upload(self, digest: str, url: str, now: float) -> None:
        """Remember where content was uploaded to, by its digest and the API that has it."""

    @abstractmethod
    async def purge(self, before: float) -> int:
        """Remove entries that were finished or rejected before a time, and older uploads.

        Returns:
            The number of entries.
        """
