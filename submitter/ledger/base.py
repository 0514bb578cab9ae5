"""Port of the ledger: every submission, written before its request and completed after it.

Whichever part first learns that a task finished (the receiver, a reconcile, a caller at its
deadline) records it in the ledger; waiting callers read it there.

Its promises, kept by every backend:

1. `intend` is atomic over all processes: of parallel intents of one key exactly one is fresh, and
   the limits hold for all of them together.
2. What a method has returned from is durable.
3. States only go forward (see `State`); late news changes nothing that is known better.
4. `finish` keeps the first result of a submission, and gives each its place in one order, so that
   a reader who remembers the last place it saw misses nothing.
5. `due` gives one entry to one caller at a time.
6. Time is an argument everywhere, in Unix seconds.

Every method raises `LedgerUnavailable` if it cannot do its work now. Nothing is changed then, but
for a COMMIT whose response was lost: repeating the call is safe.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from submitter.prediction import JSON, Prediction

RATE_WINDOW_S = 60.0
"""The window that `Limits.rate` counts in."""

MAX_PAUSE_S = 86400.0
"""The longest pause; one that ends later was written before the clock was set back."""

MAX_OPEN_ENTRIES = 1_000_000
"""More submissions than are ever open at once: a `limit` that returns all."""


class State(enum.StrEnum):
    """States of a submission: how much is known of it."""

    #: The request was about to go out; nothing else is known. To ACCEPTED, UNKNOWN, REJECTED,
    #: FINISHED.
    INTENDED = "intended"
    #: The response was lost: the task may exist and be billed. To ACCEPTED, REJECTED, FINISHED.
    UNKNOWN = "unknown"
    #: The API named a task. To FINISHED; a guess that took another submission's task, to UNKNOWN.
    ACCEPTED = "accepted"
    #: Nothing was created; it may be intended again. To INTENDED; and to ACCEPTED or FINISHED if a
    #: task turns up all the same.
    REJECTED = "rejected"
    #: The task has ended, as its status says. The last state.
    FINISHED = "finished"


OPEN = (State.INTENDED, State.UNKNOWN, State.ACCEPTED)
"""The states of submissions that count as tasks in flight."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission that is about to be sent.

    Attributes:
        key: the idempotency key; printable, at most 200 characters.
        model: the model's id.
        input: exactly what is sent.
        digest: of model and input as the caller gave them (a file by its content, not its address),
            so that a key that is used for another request is noticed.
        until: Unix seconds when the request has ended, one way or the other; an entry that is
            still INTENDED after it becomes UNKNOWN.
        context: data of the submitter, to be found again beside the result.
        webhook: True if a webhook was requested, so that the inbox gets the result.
        cost: USD by the price endpoint; None if the price was not asked for.
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
        key: as in `Intent`, like `model`, `input`, `digest`, `until`, `context`, `webhook`, `cost`.
        state: how much is known of it.
        tries: the number of intents.
        sent_at: Unix seconds of the latest intent.
        task_id: the API's id.
        guessed: the id was found in the history by model, time and input; a webhook that carries
            the key overrules it.
        accepted_at: Unix seconds.
        expected_at: Unix seconds when the result is overdue.
        ask_at: Unix seconds of the next question to the API, at first `until` for an INTENDED
            entry; None if no question is left.
        asks: the number of questions to the API.
        reason: why it is UNKNOWN or REJECTED; never repeats an input.
        status: of the task, if known.
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
    """Limits of the account; None is no limit.

    Attributes:
        rate: submits in any minute.
        in_flight: open tasks at the same time.
    """

    rate: int | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class IntentWritten:
    """Answer of `Ledger.intend` when the key has an entry.

    Attributes:
        entry: as stored now.
        fresh: True if this call wrote the intent, so that its caller sends the request; False if
            the key was there before and is not REJECTED.
    """

    entry: Entry
    fresh: bool


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Answer of `Ledger.intend` when a limit is reached; nothing was written.

    Attributes:
        until: Unix seconds of the next try; None: once a task has ended.
    """

    until: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a task that has ended.

    Attributes:
        prediction: terminal.
        key: of the submission, if known; it is matched before the task id.
        delivered: the inbox has the result.
    """

    prediction: Prediction
    key: str | None = None
    delivered: bool = False


class Ledger(ABC):
    """Interface of the ledger; the module's docstring has its promises."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and migrate an empty or older schema. May be called twice.

        Raises:
            LedgerUnavailable: it cannot be opened.
            LedgerMismatch: a newer version or another program made the database.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish pending calls, end all subscriptions, disconnect. May be called twice."""

    @abstractmethod
    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the event loop after every change of a state, by any process.

        At once for changes of this process, within 0.2 seconds for those of others. It may be
        called without a change.

        Returns:
            A function that ends the subscription.
        """

    @abstractmethod
    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        """Write an intent before its request goes out.

        An entry that exists and is not REJECTED stays, whatever the limits say. A REJECTED one is
        replaced, with all fields of `intent`. `Limits.rate` counts entries by
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

        A FINISHED entry stays. A guess changes neither an ACCEPTED entry nor a task that another
        entry has; anything else takes the task from an entry that guessed it, which becomes
        UNKNOWN again.

        Raises:
            KeyError: the key has no entry.
        """

    @abstractmethod
    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        """Add a task that another program submitted, under the key `task:<task id>`.

        An entry that has this task id already stays, and is returned. The task counts as sent and
        accepted at its creation by the API. A prediction that has ended is recorded by `finish`.
        """

    @abstractmethod
    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:
        """INTENDED becomes UNKNOWN, to be looked for in the history at `ask_at`."""

    @abstractmethod
    async def reject(self, key: str, reason: str, now: float) -> bool:
        """INTENDED or UNKNOWN becomes REJECTED; False if it was neither."""

    @abstractmethod
    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        """Record results of tasks.

        Each goes to the entry of its key, whose task id it sets, and which takes the task from an
        entry that guessed it, as in `accept`; else to the entry with its task id; else to none.
        If a task was imported beside its entry, both are finished. A FINISHED entry keeps its first
        result; `delivered` of the same task is set once it is True.

        Returns:
            The entries that this call finished, in order.
        """

    @abstractmethod
    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Entries by key, of the keys that have one."""

    @abstractmethod
    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        """Entries by task id, of the ids that have one; the entry that did not guess goes first."""

    @abstractmethod
    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        """Open entries, the longest sent first."""

    @abstractmethod
    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        """FINISHED entries whose place is greater, in order."""

    @abstractmethod
    async def last_place(self) -> int:
        """The place of the entry that was finished last; 0 if there is none."""

    @abstractmethod
    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        """Take open entries whose `ask_at` has passed, the longest due first.

        No other caller gets them for `hold` seconds, which their new `ask_at` shows; the caller
        then calls `postpone`, `finish`, `accept`, `mark_unknown` or `reject`.

        Args:
            now: Unix seconds.
            hold: seconds.
            limit: the number of entries, at most.
            keys: only these.
        """

    @abstractmethod
    async def postpone(self, key: str, ask_at: float) -> None:
        """Count one question to the API without a result, and set the time of the next."""

    @abstractmethod
    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        """Entries with a webhook, FINISHED before a time, whose result is not in the inbox."""

    @abstractmethod
    async def pause(self, until: float) -> None:
        """Write no intents before `until`, at most `MAX_PAUSE_S` ahead; never shortens a pause."""

    @abstractmethod
    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        """Seconds from accepted to finished of a model's latest completed tasks, latest first."""

    @abstractmethod
    async def overdue(self, now: float) -> int:
        """The number of open entries whose result is overdue."""

    @abstractmethod
    async def uploaded(self, digest: str, *, after: float) -> str | None:
        """The URL of content that `upload` recorded after a time (Unix seconds)."""

    @abstractmethod
    async def upload(self, digest: str, url: str, now: float) -> None:
        """Record the URL of uploaded content, by a digest of the content and its API."""

    @abstractmethod
    async def purge(self, before: float) -> int:
        """Remove entries that were finished or rejected before a time, and older uploads.

        Returns:
            The number of entries.
        """
