"""Errors of the database engine, before a port translates them into its own.

StorageError
├── StorageUnavailable       the database cannot be reached, or is busy: try again
│   ├── ConnectionLost       the connection ended in the middle of the work
│   ├── StorageConflict      another transaction wanted the same rows, and went first
│   └── StorageRefused       the database is there and refuses: a person must change something
├── StorageValueError        a value of this request cannot be stored; other requests can
├── StorageMismatch          another version, or another program, made the schema
└── DriverMissing            the database's driver is not installed

No text holds a password or a stored value.
"""

from __future__ import annotations


class StorageError(Exception):
    """Base class of the engine's errors."""


class StorageUnavailable(StorageError):
    """The database cannot be reached, or is busy; the same request may succeed later."""


class ConnectionLost(StorageUnavailable):
    """The connection ended before its work was committed; another connection may do it."""


class StorageConflict(StorageUnavailable):
    """A deadlock or a serialization failure; the same request may succeed at once."""


class StorageRefused(StorageUnavailable):
    """The database answers and refuses; it succeeds once a person has changed something.

    Attributes:
        reason: the database's address and its own message.
        remedy: what the person must do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class StorageValueError(StorageError):
    """The database cannot store a value of this request; a repetition fails in the same way."""


class StorageMismatch(StorageError):
    """Another version of this program, or another program, made the schema.

    Attributes:
        found: the schema version in the database; 0 where another program made it.
        expected: the schema version of this program.
    """

    def __init__(self, message: str, found: int, expected: int) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class DriverMissing(StorageError):
    """The Python package that speaks to the database is not installed."""
