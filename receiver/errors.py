"""Errors of the receiver.

WavehookError
├── Rejected                 a refused delivery; carries its HTTP status
│   ├── Unverified           401: not proven to come from the source
│   │   └── Stale            401: validly signed, but outside the time window
│   ├── UnknownSource        404
│   ├── BodyTooSlow          408
│   ├── BodyTooLarge         413
│   └── BodyEncoded          415
├── StoreError
│   ├── StoreUnavailable     503: cannot work now; carries Retry-After
│   │   └── StoreRefused     503: nor later, until a person changes something
│   └── SchemaMismatch       the database was made by another version
├── ApiUnavailable           503: the API does not answer about a task
├── SettingsError            carries all faults at once
├── Refused                  an outbound request that is not allowed (SSRF guard)
├── Retry                    raised by a handler: run it again
└── GiveUp                   raised by a handler: do not retry
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class WavehookError(Exception):
    """Base class of all errors of the receiver."""


class Rejected(WavehookError):
    """A refused delivery.

    Attributes:
        status: the HTTP status of the response.
        title: text for the sender; the same for every reason of one class.
        reason: one word for logs and metrics; never shown to the sender.
    """

    status: ClassVar[int] = 400
    title: ClassVar[str] = "The delivery was refused"
    reason: str = "refused"

    def __init__(self, reason: str | None = None) -> None:
        if reason is not None:
            self.reason = reason
        super().__init__(self.reason)


class Unverified(Rejected):
    """The delivery could not be verified.

    The response is the same for every reason, so that it does not help to forge a delivery.
    """

    status = 401
    title = "The delivery could not be verified"
    reason = "signature"


class Stale(Unverified):
    """Validly signed, but outside the time window: a replay, a late retry or a wrong clock.

    Attributes:
        skew: seconds from the delivery's timestamp to now; positive if the delivery is old.
        subject: the task id in the signed body, by which the result can be fetched; or None.
    """

    reason = "stale"

    def __init__(self, skew: float, subject: str | None = None) -> None:
        super().__init__()
        self.skew = skew
        self.subject = subject


class UnknownSource(Rejected):
    """The path names a source that is not configured."""

    status = 404
    title = "This source does not exist"
    reason = "unknown_source"


class BodyTooSlow(Rejected):
    """The body did not arrive within the deadline."""

    status = 408
    title = "The body did not arrive in time"
    reason = "too_slow"


class BodyTooLarge(Rejected):
    """The body is larger than `WAVEHOOK_MAX_BODY`."""

    status = 413
    title = "The body is too large"
    reason = "too_large"


class BodyEncoded(Rejected):
    """The body is compressed, but the signature covers the plain bytes."""

    status = 415
    title = "Content-Encoding is not accepted; send the body uncompressed, as it was signed"
    reason = "encoded"


class StoreError(WavehookError):
    """An operation of the inbox failed."""


class StoreUnavailable(StoreError):
    """The inbox cannot be read or written now.

    Attributes:
        retry_after: seconds until a retry makes sense.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreRefused(StoreUnavailable):
    """The database refuses; a retry helps only after a person has changed something.

    Attributes:
        reason: the database's address and its error message.
        todo: the change to make.
    """

    def __init__(self, reason: str, todo: str) -> None:
        super().__init__(f"{reason}; {todo}")
        self.reason = reason
        self.todo = todo


class SchemaMismatch(StoreError):
    """The database has a schema version that this program cannot use.

    Attributes:
        found: the schema version of the database.
        expected: the schema version of this program.
    """

    def __init__(self, message: str, found: int, expected: int) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class ApiUnavailable(WavehookError):
    """The API did not answer about the task of a stale delivery; the sender must retry.

    Attributes:
        retry_after: seconds until a retry makes sense.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SettingsError(WavehookError):
    """Faulty settings.

    Attributes:
        faults: one sentence each: the setting, its value (secrets masked), and what was expected.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Refused(WavehookError):
    """An outbound request that is not allowed, such as one into a private network."""


class Retry(WavehookError):
    """Raised by a handler to be run again.

    Args:
        error: the reason, stored with the attempt.
        after: shortest delay in seconds; None leaves it to the handler's retry policy.
        pause: pause all dispatches of the handler for that time, not only this one: for a service
            that answers 429 or 503 with Retry-After.
    """

    def __init__(
        self, error: str = "retry", *, after: float | None = None, pause: bool = False
    ) -> None:
        super().__init__(error)
        self.after = after
        self.pause = pause


class GiveUp(WavehookError):
    """Raised by a handler if a retry cannot help; the dispatch is dead at once."""
