"""One batch: rows that the ledger knows are taken from it; the rest is submitted and waited for.

The only state is in the ledger. So the same command continues a batch that was killed, and two
batches of the same name may run at the same time. While the API is unavailable, all rows back off
together, and none of them fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random as _random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from submitter.batch.prices import Prices
from submitter.batch.rows import Row, RowState, content_key, retry_key
from submitter.client import Submission, WaveSpeed
from submitter.errors import (
    ApiError,
    AuthFailed,
    BadInput,
    InsufficientBalance,
    LedgerUnavailable,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)
from submitter.ledger.base import OPEN, Entry, State
from submitter.prediction import JSON, Prediction, Status
from submitter.reconcile.schedule import Schedule
from submitter.submit.files import is_url, takes_files


class SharedBackoff:
    """Exponential backoff that all rows share.

    Args:
        schedule: gives the lengths of the waits.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(self, schedule: Schedule, *, random: Callable[[], float] = _random.random) -> None:
        self._schedule = schedule
        self._random = random
        self._failures = 0
        self._until = 0.0
        self.problem: str | None = None
        """The last error; None again after a success."""

    async def wait(self, stopping: asyncio.Event) -> int:
        """Wait until the next attempt is due, or `stopping`; returns a number for `failed`."""
        now = asyncio.get_running_loop().time
        left = self._until - now()
        while left > 0 and not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                # Jitter: not all rows at the same moment.
                wait = left + self._random() * self._schedule.soon
                async with asyncio.timeout(wait):
                    await stopping.wait()
            left = self._until - now()
        return self._failures

    def failed(self, turn: int, problem: str) -> None:
        """Count a failed attempt; of attempts that began together, only one counts."""
        self.problem = problem
        if turn == self._failures:
            wait = self._schedule.pause(self._failures, self._random)
            self._until = asyncio.get_running_loop().time() + wait
            self._failures += 1

    def succeeded(self) -> None:
        """Reset after a successful attempt."""
        self._failures = 0
        self._until = 0.0
        self.problem = None


LOOKUP_PAGE_SIZE = 500
"""Keys that are looked up in the ledger together."""

MAX_CONCURRENT_SUBMITS = 50
"""Submits that are sent to the API, or wait for the rate limit."""


class Batch:
    """The rows of one batch, and their way to a result.

    Args:
        wave: the client, entered; its limits apply.
        model: the model's id.
        rows: all rows.
        schemas: schemas of the model's fields.
        schedule: backoff while the API is unavailable.
        webhook: ask for webhooks.
        receiver_reports: a receiver may report results, without a question to the API.
        window: maximum number of rows in progress.
    """

    def __init__(
        self,
        wave: WaveSpeed,
        model: str,
        rows: Sequence[Row],
        *,
        schemas: Mapping[str, JSON],
        schedule: Schedule,
        webhook: bool = True,
        receiver_reports: bool = False,
        window: int,
    ) -> None:
        self.rows = rows
        self.ended = 0
        """Number of rows whose tasks ended during this run."""
        self.stopped: SubmitterError | None = None
        """The error that stopped further submits."""
        self.backoff = SharedBackoff(schedule)
        self._schedule = schedule
        self._wave = wave
        self._model = model
        self._schemas = schemas
        self._webhook = webhook
        self._receiver_reports = receiver_reports
        self._window = window
        self._stopping = asyncio.Event()
        self._submit_slots = asyncio.Semaphore(MAX_CONCURRENT_SUBMITS)
        self._sending: set[asyncio.Task[Submission]] = set()
        self._waits: set[asyncio.Task[Prediction]] = set()

    @property
    def counts(self) -> Counter[RowState]:
        """Number of rows in each state."""
        return Counter(row.state for row in self.rows)

    @property
    def cost(self) -> float:
        """USD of the submitted rows, as far as known."""
        return sum(row.cost or 0.0 for row in self.rows if row.state in _SUBMITTED)

    async def load_known(self, rows: Sequence[Row]) -> None:
        """Update rows from the ledger.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        left = {row.key: row for row in rows if row.state is not RowState.INVALID}
        while left:
            later: dict[str, Row] = {}
            for keys in _pages(list(left)):
                for key, entry in (await self._wave.find(keys)).items():
                    if entry.state is not State.REJECTED:
                        _take(left[key], entry)
                        # A failed row may have been submitted again under the next key.
                        if left[key].state is RowState.FAILED:
                            later[retry_key(key)] = left[key]
            left = later

    def resubmit_failed(self, shown: frozenset[str]) -> int:
        """Make failed rows ready to be submitted again; returns how many.

        Only rows whose failure stands in the results file: a row that was submitted again before a
        kill is not billed a third time.

        Args:
            shown: keys of the failed rows in the results file.
        """
        again = [
            row
            for row in self.rows
            if row.state is RowState.FAILED and {row.key, retry_key(row.key)} & shown
        ]
        for row in again:
            _resubmit(row, retry_key(row.key))
        return len(again)

    async def check(self, prices: Prices) -> None:
        """Validate every row to be submitted, and add it to its price group.

        Raises:
            BadInput: the model's id or the common context is not valid.
            BadSettings: a context needs a public URL and a seal key.
            LedgerUnavailable: the ledger cannot be read.
        """
        changed: list[Row] = []
        for row in self.rows:
            if row.state is RowState.INVALID:
                continue
            input = json.loads(row.text)
            if row.state is not RowState.WAITING and not self._names_files(input):
                continue
            try:
                order = await self._wave.check(
                    self._model, input, key=row.key, context=row.context, webhook=self._webhook
                )
            except BadInput as error:
                # A submitted row stays submitted, although its local file may be gone.
                if row.state is RowState.WAITING:
                    _refuse(row, RowState.INVALID, error)
                continue
            if row.digest not in (None, order.digest):
                _resubmit(row, content_key(row.key, order.digest))
                changed.append(row)
            if row.state is RowState.WAITING:
                row.price_group = prices.add(order.prepared.input)
        await self.load_known(changed)

    def price(self, prices: Prices) -> tuple[float, int]:
        """Set the cost of each row to be submitted.

        Returns:
            Total USD, and the number of rows without a price.
        """
        total, unknown = 0.0, 0
        for row in self.rows:
            if row.state is RowState.WAITING and row.price_group is not None:
                row.cost = prices.cost(row.price_group)
                total += row.cost or 0.0
                unknown += row.cost is None
        return total, unknown

    async def run(self) -> None:
        """Submit the rows and wait until all have ended; cancelling it loses nothing."""
        open_rows = [row for row in self.rows if row.state in _UNFINISHED]
        left = iter(open_rows)
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._window, len(open_rows))):
                    group.create_task(self._process(left))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Probe the API when no row ends for a while: the key may be refused, or the API away."""
        while True:
            before = self.ended
            await asyncio.sleep(self._schedule.overdue)
            if self.ended == before:
                try:
                    await self._wave.balance()
                except AuthFailed as error:
                    self._stop(error)
                except (ApiError, Unavailable) as error:
                    self.backoff.problem = str(error)

    async def _process(self, rows: Iterator[Row]) -> None:
        for row in rows:
            while row.state in _UNFINISHED:
                waiting = row.state is RowState.WAITING
                turn = await self.backoff.wait(self._stopping if waiting else asyncio.Event())
                if self._stopping.is_set() and (waiting or self._gets_no_results()):
                    break
                try:
                    if waiting:
                        await self._send(row)
                    if row.state is RowState.RUNNING:
                        await self._await_end(row)
                except (RateLimited, Unavailable, LedgerUnavailable) as error:
                    self.backoff.failed(turn, str(error))

    async def _send(self, row: Row) -> None:
        async with self._submit_slots:
            if not self._stopping.is_set() and await self._submit(row):
                self.backoff.succeeded()
                row.state = RowState.RUNNING

    async def _submit(self, row: Row) -> bool:
        """Submit a row; returns whether its task exists, or may exist."""
        sending = asyncio.create_task(
            self._wave.submit(
                self._model,
                json.loads(row.text),
                key=row.key,
                context=row.context,
                webhook=self._webhook,
                cost=row.cost,
            )
        )
        self._sending.add(sending)
        try:
            await sending
        except SubmissionUnknown:
            return True
        except (AuthFailed, InsufficientBalance, NotFound) as error:
            self._stop(error)
        except (RateLimited, Unavailable, LedgerUnavailable):
            raise
        except BadInput as error:
            _refuse(row, RowState.INVALID, error)
        except SubmitterError as error:
            _refuse(row, RowState.REJECTED, error)
        except asyncio.CancelledError:
            if _cancelled():
                raise
            # It was cancelled by `_stop`; a request that was already sent has an entry.
            entry = (await self._wave.find([row.key])).get(row.key)
            return entry is not None and entry.state in OPEN
        else:
            return True
        finally:
            self._sending.discard(sending)
        return False

    async def _await_end(self, row: Row) -> None:
        waiting = asyncio.create_task(self._wave.wait(row.key))
        self._waits.add(waiting)
        try:
            prediction = await waiting
        except asyncio.CancelledError:
            if _cancelled():
                raise
        except Unavailable:
            # The lost response had created no task: it may be sent again.
            row.state = RowState.WAITING
        except (ApiError, BadInput) as error:
            # Someone removed it from the ledger.
            _refuse(row, RowState.REJECTED, error)
        else:
            self.ended += 1
            self.backoff.problem = None
            row.state = RowState.COMPLETED if prediction.succeeded else RowState.FAILED
        finally:
            self._waits.discard(waiting)

    def _stop(self, error: SubmitterError) -> None:
        """Stop submitting: the error would be the same for all rows."""
        if self.stopped is None:
            self.stopped = error
            self._stopping.set()
            for task in [*self._sending, *(self._waits if self._gets_no_results() else ())]:
                task.cancel()

    def _gets_no_results(self) -> bool:
        """Whether running tasks can be neither polled nor reported by a receiver."""
        return isinstance(self.stopped, AuthFailed) and not self._receiver_reports

    def _names_files(self, input: Mapping[str, JSON]) -> bool:
        return any(
            takes_files(name, self._schemas.get(name)) and not is_url(value)
            for name, value in input.items()
        )


_UNFINISHED = (RowState.WAITING, RowState.RUNNING)
_SUBMITTED = (RowState.RUNNING, RowState.COMPLETED, RowState.FAILED)


def _take(row: Row, entry: Entry) -> None:
    row.key, row.digest, row.cost = entry.key, entry.digest, entry.cost
    row.state = RowState.RUNNING
    if entry.state is State.FINISHED:
        well = entry.status == Status.COMPLETED
        row.state = RowState.COMPLETED if well else RowState.FAILED


def _resubmit(row: Row, key: str) -> None:
    row.key, row.digest, row.cost = key, None, None
    row.state = RowState.WAITING


def _refuse(row: Row, state: RowState, error: SubmitterError) -> None:
    row.state, row.error = state, str(error)
    if isinstance(error, BadInput):
        row.error = "; ".join(map(str, error.faults))
    elif isinstance(error, ApiError):
        row.code = error.code
        row.error += f": {error.message}" if error.message else ""


def _cancelled() -> bool:
    """Whether this task itself is cancelled, not only one that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (
        keys[start : start + LOOKUP_PAGE_SIZE] for start in range(0, len(keys), LOOKUP_PAGE_SIZE)
    )
