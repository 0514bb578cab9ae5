"""Notices changes of one file: this process's at once, others' by looking often and cheaply."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from submitter.ledger.schema import connect, statements
from submitter.ledger.wakes import Wakes

_watches: WeakValueDictionary[Path, Watch] = WeakValueDictionary()
_lock = threading.Lock()


def watch(path: Path) -> Watch:
    """The one watch that this process has for a file."""
    resolved = path.resolve()
    with _lock:
        found = _watches.get(resolved)
        if found is None:
            found = _watches[resolved] = Watch(resolved)
        return found


class Watch:
    """Wakes all in this process who wait for changes of a file.

    A thread looks for other processes' changes, as long as anybody waits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wakes = Wakes()
        self._lock = threading.Lock()
        self._look = threading.Event()
        self._thread: threading.Thread | None = None
        self._poll = 0.0
        self._seen: int | None = None
        self._changes = statements()["head"]

    def add(self, wake: Callable[[], None], poll: float) -> Callable[[], None]:
        """Wake from now on; returns what ends it.

        Args:
            wake: called on the event loop that runs here.
            poll: seconds between two looks; the last word counts for all.
        """
        end_wake = self._wakes.add(wake)
        with self._lock:
            self._poll = poll
            if self._thread is None:
                # Nothing is seen yet, so that the first look wakes: something may have changed
                # between this and that.
                self._seen = None
                self._thread = threading.Thread(
                    target=self._run, name="wavehook-ledger-watch", daemon=True
                )
                self._thread.start()
        self._look.set()

        def end() -> None:
            end_wake()
            self._look.set()

        return end

    def told(self, changes: int) -> None:
        """This process has committed; `changes` is the counter's value by then."""
        if changes != self._seen:
            self._seen = changes
            self._wakes.fire()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        version = None
        while self._wanted():
            try:
                if connection is None:
                    connection, version = connect(self._path), None
                # This number moves with every commit of anybody else, also of the inbox.
                (found,) = connection.execute("PRAGMA data_version").fetchone()
                if found != version:
                    version = found
                    self.told(connection.execute(self._changes).fetchone()[0])
            except sqlite3.Error:
                # Whoever is woken asks the ledger, and is told what is wrong with it.
                _close(connection)
                connection = None
                self._wakes.fire()
            self._look.wait(self._poll)
            self._look.clear()
        _close(connection)

    def _wanted(self) -> bool:
        with self._lock:
            if self._wakes.any():
                return True
            self._thread = None
            return False


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
