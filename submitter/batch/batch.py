"""The way of a batch: what the ledger knows is taken from it, the rest is sent and waited for.

Nothing of it is kept but in the ledger. So a batch that was killed goes on where it was, by the
same command, and two of the same name at once come to the same.

All rows wait together while the API is away, and none of them gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random as _random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from submitter.batch.prices import Prices
from submitter.batch.rows import Row, Standing, following, with_content
from submitter.client import WaveSpeed
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
from submitter.submit.submission import Submission


class Patience:
    """Growing waits, one for all.

    Args:
        schedule: of the waits.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(self, schedule: Schedule, *, random: Callable[[], float] = _random.random) -> None:
        self._schedule = schedule
        self._random = random
        self._failures = 0
        self._until = 0.0
        self.trouble: str | None = None
        """What is wrong, until something goes well."""

    async def turn(self, given_up: asyncio.Event) -> int:
        """Wait until it is time to try, or given up; returns what `failed` wants to be told."""
        now = asyncio.get_running_loop().time
        left = self._until - now()
        while left > 0 and not given_up.is_set():
            with contextlib.suppress(TimeoutError):
                # Not all in the same moment.
                wait = left + self._random() * self._schedule.soon
                await asyncio.wait_for(given_up.wait(), wait)
            left = self._until - now()
        return self._failures

    def failed(self, turn: int, trouble: str) -> None:
        """A try failed; of those that began together, one counts."""
        self.trouble = trouble
        if turn == self._failures:
            wait = self._schedule.pause(self._failures, self._random)
            self._until = asyncio.get_running_loop().time() + wait
            self._failures += 1

    def passed(self) -> None:
        """A try went well."""
        self._failures = 0
        self._until = 0.0
        self.trouble = None


PAGE = 500
"""Keys that are looked up together."""

SENDERS = 50
"""Rows that are on their way to the API, or in line for it."""


class Batch:
    """The rows of one batch.

    Args:
        wave: the client, entered; the limits are its own.
        model: the model's id.
        rows: all of them.
        schemas: of the model's fields.
        schedule: of the waits while the API is away.
        webhook: whether to ask for webhooks.
        heard: whether a receiver may tell of results, so that the API need not be asked.
        window: rows that are seen through at one time.
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
        heard: bool = False,
        window: int,
    ) -> None:
        self.rows = rows
        self.ended = 0
        """Rows whose tasks ended while this ran."""
        self.stopped: SubmitterError | None = None
        """Why nothing more is submitted."""
        self.patience = Patience(schedule)
        self._schedule = schedule
        self._wave = wave
        self._model = model
        self._schemas = schemas
        self._webhook = webhook
        self._heard = heard
        self._window = window
        self._given_up = asyncio.Event()
        self._places = asyncio.Semaphore(SENDERS)
        self._sending: set[asyncio.Task[Submission]] = set()
        self._waits: set[asyncio.Task[Prediction]] = set()

    @property
    def counts(self) -> Counter[Standing]:
        """How many rows are how far."""
        return Counter(row.standing for row in self.rows)

    @property
    def cost(self) -> float:
        """USD of what was submitted, as far as it is known."""
        return sum(row.cost or 0.0 for row in self.rows if row.standing in _SUBMITTED)

    async def look_up(self, rows: Sequence[Row]) -> None:
        """Take from the ledger what it knows of rows.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        left = {row.key: row for row in rows if row.standing is not Standing.INVALID}
        while left:
            later: dict[str, Row] = {}
            for keys in _pages(list(left)):
                for key, entry in (await self._wave.find(keys)).items():
                    if entry.state is not State.REJECTED:
                        _take(left[key], entry)
                        # Where its task ended badly, it may have been paid for again.
                        if left[key].standing is Standing.FAILED:
                            later[following(key)] = left[key]
            left = later

    def pay_again(self, shown: frozenset[str]) -> int:
        """Send again what has failed and is shown so; returns how many rows.

        What a kill left unshown is not paid for a third time.

        Args:
            shown: keys of results that a person could see to have failed.
        """
        again = [
            row
            for row in self.rows
            if row.standing is Standing.FAILED and {row.key, following(row.key)} & shown
        ]
        for row in again:
            _renew(row, following(row.key))
        return len(again)

    async def check(self, prices: Prices) -> None:
        """Check every row that is to be sent, and take note of what its price depends on.

        Raises:
            BadInput: the model's id or the context is bad, which are the same for all.
            BadSettings: a context needs a public URL and a seal.
            LedgerUnavailable: it cannot be read.
        """
        changed: list[Row] = []
        for row in self.rows:
            if row.standing is Standing.INVALID:
                continue
            input = json.loads(row.text)
            if row.standing is not Standing.WAITING and not self._names_files(input):
                continue
            try:
                order = await self._wave.check(
                    self._model, input, key=row.key, context=row.context, webhook=self._webhook
                )
            except BadInput as error:
                # What is paid for is paid for, though its file may be gone.
                if row.standing is Standing.WAITING:
                    _refuse(row, Standing.INVALID, error)
                continue
            if row.digest not in (None, order.digest):
                _renew(row, with_content(row.key, order.digest))
                changed.append(row)
            if row.standing is Standing.WAITING:
                row.offer = prices.add(order.prepared.input)
        await self.look_up(changed)

    def price(self, prices: Prices) -> tuple[float, int]:
        """Give each row that is to be sent its cost.

        Returns:
            USD for all of them, and how many have no price.
        """
        total, unknown = 0.0, 0
        for row in self.rows:
            if row.standing is Standing.WAITING and row.offer is not None:
                row.cost = prices.cost(row.offer)
                total += row.cost or 0.0
                unknown += row.cost is None
        return total, unknown

    async def run(self) -> None:
        """Send what is to be sent, and wait until all have ended; whoever cancels loses nothing."""
        open_rows = [row for row in self.rows if row.standing in _UNFINISHED]
        left = iter(open_rows)
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._window, len(open_rows))):
                    group.create_task(self._see_through(left))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Notice that nothing ends because the key is refused, or the API is away."""
        while True:
            before = self.ended
            await asyncio.sleep(self._schedule.overdue)
            if self.ended == before:
                try:
                    await self._wave.balance()
                except AuthFailed as error:
                    self._stop(error)
                except (ApiError, Unavailable) as error:
                    self.patience.trouble = str(error)

    async def _see_through(self, rows: Iterator[Row]) -> None:
        for row in rows:
            while row.standing in _UNFINISHED:
                waiting = row.standing is Standing.WAITING
                turn = await self.patience.turn(self._given_up if waiting else asyncio.Event())
                if self._given_up.is_set() and (waiting or self._is_deaf()):
                    break
                try:
                    if waiting:
                        await self._send(row)
                    if row.standing is Standing.RUNNING:
                        await self._await_end(row)
                except (RateLimited, Unavailable, LedgerUnavailable) as error:
                    self.patience.failed(turn, str(error))

    async def _send(self, row: Row) -> None:
        async with self._places:
            if not self._given_up.is_set() and await self._submit(row):
                self.patience.passed()
                row.standing = Standing.RUNNING

    async def _submit(self, row: Row) -> bool:
        """Whether it is under way now, as far as is known."""
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
            _refuse(row, Standing.INVALID, error)
        except SubmitterError as error:
            _refuse(row, Standing.REJECTED, error)
        except asyncio.CancelledError:
            if _cancelled():
                raise
            # Its place in line is given up; a request that is on its way is waited for.
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
            # The lost answer had created nothing: it may be sent again.
            row.standing = Standing.WAITING
        except (ApiError, BadInput) as error:
            # Somebody has taken it out of the ledger.
            _refuse(row, Standing.REJECTED, error)
        else:
            self.ended += 1
            self.patience.trouble = None
            row.standing = Standing.COMPLETED if prediction.succeeded else Standing.FAILED
        finally:
            self._waits.discard(waiting)

    def _stop(self, error: SubmitterError) -> None:
        """Submit nothing more: the same would happen to all."""
        if self.stopped is None:
            self.stopped = error
            self._given_up.set()
            for task in [*self._sending, *(self._waits if self._is_deaf() else ())]:
                task.cancel()

    def _is_deaf(self) -> bool:
        """Whether nobody would ever tell how the tasks that are on their way have ended."""
        return isinstance(self.stopped, AuthFailed) and not self._heard

    def _names_files(self, input: Mapping[str, JSON]) -> bool:
        return any(
            takes_files(name, self._schemas.get(name)) and not is_url(value)
            for name, value in input.items()
        )


_UNFINISHED = (Standing.WAITING, Standing.RUNNING)
_SUBMITTED = (Standing.RUNNING, Standing.COMPLETED, Standing.FAILED)


def _take(row: Row, entry: Entry) -> None:
    row.key, row.digest, row.cost = entry.key, entry.digest, entry.cost
    row.standing = Standing.RUNNING
    if entry.state is State.FINISHED:
        well = entry.status == Status.COMPLETED
        row.standing = Standing.COMPLETED if well else Standing.FAILED


def _renew(row: Row, key: str) -> None:
    row.key, row.digest, row.cost = key, None, None
    row.standing = Standing.WAITING


def _refuse(row: Row, standing: Standing, error: SubmitterError) -> None:
    row.standing, row.error = standing, str(error)
    if isinstance(error, BadInput):
        row.error = "; ".join(map(str, error.faults))
    elif isinstance(error, ApiError):
        row.code = error.code
        row.error += f": {error.message}" if error.message else ""


def _cancelled() -> bool:
    """Whether this task is cancelled, and not just one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + PAGE] for start in range(0, len(keys), PAGE))
