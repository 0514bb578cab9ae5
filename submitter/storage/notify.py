"""Change notifier: wakes those in this process who wait for a change that any process makes.

`Subscribers` are the waiters of this process. Changes of other processes reach it through a
`Listener` (PostgreSQL's LISTEN and NOTIFY) or a `ChangePoller` (a SQLite file).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from submitter.storage.errors import StorageError, StorageUnavailable

if TYPE_CHECKING:
    import sqlite3

    from submitter.storage.postgres_pool import Pool, PostgresConnection

HEARTBEAT_INTERVAL_S = 5.0
"""Time between two questions to a silent connection: does it still reach the primary server?"""

RECONNECT_INTERVAL_S = 1.0
"""Time between the starts of two connections, at least."""


class _Subscriber:
    __slots__ = ("loop", "pending", "wake")

    def __init__(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.wake = wake
        self.loop = loop
        self.pending = False


class Subscribers:
    """The waiters of this process for changes of one database; for use from any thread."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()
        self._lock = threading.Lock()
        self._seen: int | None = None

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the running event loop from now on; returns what ends it."""
        subscriber = _Subscriber(wake, asyncio.get_running_loop())
        with self._lock:
            self._subscribers.add(subscriber)
        return lambda: self._drop(subscriber)

    def active(self) -> bool:
        """True while anyone is subscribed whose event loop is not closed."""
        with self._lock:
            self._subscribers = {each for each in self._subscribers if not each.loop.is_closed()}
            return bool(self._subscribers)

    def announce(self, changes: int) -> None:
        """Wake all if the database's counter of changes is another than the last one seen."""
        if changes != self._seen:
            self._seen = changes
            self.fire()

    def forget(self) -> None:
        """Let the next `announce` wake all, whatever its counter."""
        self._seen = None

    def fire(self) -> None:
        """Wake all, each once for any number of calls until it runs."""
        with self._lock:
            sleeping = [each for each in self._subscribers if not each.pending]
            for subscriber in sleeping:
                subscriber.pending = True
        for subscriber in sleeping:
            try:
                subscriber.loop.call_soon_threadsafe(self._wake, subscriber)
            except RuntimeError:  # The loop is closed.
                self._drop(subscriber)

    def _wake(self, subscriber: _Subscriber) -> None:
        subscriber.pending = False
        if subscriber in self._subscribers:
            subscriber.wake()

    def _drop(self, subscriber: _Subscriber) -> None:
        with self._lock:
            self._subscribers.discard(subscriber)


T = TypeVar("T")

_shared: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_shared_lock = threading.Lock()


def shared(database: Hashable, make: Callable[[], T]) -> T:
    """The one notifier that this process has for a database; `make` makes the first.

    Several objects on one database, such as a receiver's and a client's ledger, so wake each
    other's waiters at once.
    """
    with _shared_lock:
        found: T | None = _shared.get(database)
        if found is None:
            found = _shared[database] = make()
        return found


class Listener:
    """A PostgreSQL connection that LISTENs on one channel.

    It is replaced at once when it ends, and after a heartbeat when the server does not answer or
    has become read-only: a failover leaves such a connection open on the old server, which never
    notifies it again. The other connections of the pool are dropped with it.

    Args:
        pool: makes the connection.
        channel: its name.
        notified: called with the payload of each notification.
        reconnected: called after a new connection, as notifications may have been missed.
        heartbeat_interval_s: time between two questions to a silent connection.
        reconnect_interval_s: time between the starts of two connections, at least.
    """

    def __init__(
        self,
        pool: Pool,
        channel: str,
        notified: Callable[[str], None],
        reconnected: Callable[[], None],
        *,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
        reconnect_interval_s: float = RECONNECT_INTERVAL_S,
    ) -> None:
        self._pool = pool
        self._channel = channel
        self._notified = notified
        self._reconnected = reconnected
        self._heartbeat_interval_s = heartbeat_interval_s
        self._reconnect_interval_s = reconnect_interval_s
        self._connection: PostgresConnection | None = None
        self._ended = asyncio.Event()
        self._connected_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """LISTEN from now on; if that fails, it is tried again in the background."""
        with contextlib.suppress(StorageUnavailable):
            await self._connect()
        self._task = asyncio.create_task(self._run(), name="wavehook-listener")

    async def stop(self) -> None:
        """Stop, and close the connection."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
        self._drop()

    async def _run(self) -> None:
        while True:
            try:
                if self._connection is None:
                    await asyncio.sleep(self._until_reconnect())
                    await self._connect()
                    self._reconnected()
                async with asyncio.timeout(self._heartbeat_interval_s):
                    await self._ended.wait()
                self._drop()
            except TimeoutError:
                if self._connection is not None:
                    await self._pool.check(self._connection)
            except StorageUnavailable:
                self._drop()

    def _until_reconnect(self) -> float:
        return max(0.0, self._connected_at + self._reconnect_interval_s - time.monotonic())

    async def _connect(self) -> None:
        self._connected_at = time.monotonic()
        ended = self._ended = asyncio.Event()
        self._connection = await self._pool.listen(self._channel, self._notified, ended.set)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RuntimeError):  # Its loop is closed.
                connection.terminate()


class PostgresNotifier:
    """Wakes subscribers when a counter of changes in a PostgreSQL database has changed.

    A task looks at the counter, as long as anyone is subscribed to this object; with a channel, it
    LISTENs too, and the looks are for notifications that were missed.

    Args:
        pool: connects.
        count: reads the counter.
        subscribers: woken when the counter has changed, or cannot be read.
        poll_interval_s: time between two looks.
        channel: where other processes NOTIFY of the counter; None behind a pooler.
    """

    def __init__(
        self,
        pool: Pool,
        count: Callable[[], Awaitable[int]],
        subscribers: Subscribers,
        *,
        poll_interval_s: float,
        channel: str | None,
    ) -> None:
        self._pool = pool
        self._count = count
        self._subscribers = subscribers
        self._poll_interval_s = poll_interval_s
        self._channel = channel
        self._ends: set[Callable[[], None]] = set()
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the running event loop from now on; returns what ends it."""
        unsubscribe = self._subscribers.add(wake)
        self._ends.add(unsubscribe)
        if self._task is None or self._task.done() or self._task.get_loop().is_closed():
            self._task = asyncio.create_task(self._run(), name="wavehook-notifier")

        def end() -> None:
            unsubscribe()
            self._ends.discard(unsubscribe)
            if not self._ends:
                self._stop()

        return end

    async def close(self) -> None:
        """End all subscriptions made here."""
        while self._ends:
            self._ends.pop()()
        task = self._stop()
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({task})

    def _stop(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()
        return task

    async def _run(self) -> None:
        look_now = asyncio.Event()
        listener = None
        if self._channel is not None:
            listener = Listener(self._pool, self._channel, self._on_notification, look_now.set)
            await listener.start()
        try:
            while True:
                try:
                    self._subscribers.announce(await self._count())
                except StorageError:
                    # Those who are woken ask the ledger, whose error says what is wrong.
                    self._subscribers.fire()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_interval_s):
                        await look_now.wait()
                look_now.clear()
        finally:
            if listener is not None:
                await listener.stop()

    def _on_notification(self, payload: str) -> None:
        # Anyone may send anything to a channel.
        if payload.isdecimal():
            self._subscribers.announce(int(payload))


class ChangePoller:
    """Thread that looks for other processes' changes of a SQLite file, while anyone is subscribed.

    Args:
        connect: opens the file.
        count: SQL of the counter of changes.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], count: str) -> None:
        self._connect = connect
        self._count = count
        self._subscribers = Subscribers()
        self._lock = threading.Lock()
        self._look_now = threading.Event()
        self._thread: threading.Thread | None = None
        self._interval_s = 0.0

    def subscribe(self, wake: Callable[[], None], interval_s: float) -> Callable[[], None]:
        """Call `wake` on the running event loop from now on; returns what ends it.

        Args:
            wake: called when the counter has changed, or cannot be read.
            interval_s: time between two looks; the latest subscriber's counts for all.
        """
        unsubscribe = self._subscribers.add(wake)
        with self._lock:
            self._interval_s = interval_s
            if self._thread is None:
                # The first look wakes: something may have changed since the caller looked.
                self._subscribers.forget()
                self._thread = threading.Thread(
                    target=self._run, name="wavehook-change-poller", daemon=True
                )
                self._thread.start()
        self._look_now.set()

        def end() -> None:
            unsubscribe()
            self._look_now.set()

        return end

    def announce(self, changes: int) -> None:
        """Wake all subscribers: this process has committed, and the counter is `changes` now."""
        self._subscribers.announce(changes)

    def _run(self) -> None:
        import sqlite3

        connection: sqlite3.Connection | None = None
        version = None
        while self._is_wanted():
            try:
                if connection is None:
                    connection, version = self._connect(), None
                # This number moves with every commit of anybody else, also of the inbox.
                (found,) = connection.execute("PRAGMA data_version").fetchone()
                if found != version:
                    version = found
                    self._subscribers.announce(connection.execute(self._count).fetchone()[0])
            except sqlite3.Error:
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
                connection = None
                # Those who are woken ask the ledger, whose error says what is wrong.
                self._subscribers.fire()
            self._look_now.wait(self._interval_s)
            self._look_now.clear()
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _is_wanted(self) -> bool:
        with self._lock:
            if self._subscribers.active():
                return True
            self._thread = None
            return False
