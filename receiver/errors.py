"""Every error of the receiver.

WavehookError
├── Rejected                 a delivery that is refused; carries its HTTP status
│   ├── Unverified           401: not proven to come from the source
│   │   └── Stale            401: well signed, but outside the time window
│   ├── UnknownSource        404
│   ├── BodyTooSlow          408
│   ├── BodyTooLarge         413
│   └── BodyEncoded          415
├── StoreError
│   ├── StoreUnavailable     503: cannot take it now; carries when to ask again
│   │   └── StoreRefused     503: and will not, until a person does something
│   └── SchemaMismatch       the database was made by another version
├── ApiUnavailable           503: the API does not say how a task stands
├── SettingsError            carries every fault at once
├── Refused                  an outbound request that must not be made (safe_http)
├── Retry                    raised by a handler: try again
└── GiveUp                   raised by a handler: never again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class WavehookError(Exception):
    """The base of all."""


class Rejected(WavehookError):
    """A delivery that is refused.

    Attributes:
        status: the HTTP status of the answer.
        title: what the sender is told; the same for every reason of one class.
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
    """Nothing proves that the delivery comes from its source.

    Every reason looks the same from outside, so that nobody can find the right half of a forgery.
    """

    status = 401
    title = "The delivery could not be verified"
    reason = "signature"


class Stale(Unverified):
    """Well signed, but its time is outside the window: a replay, a late retry or a wrong clock.

    Attributes:
        skew: seconds between our clock and the delivery's time; positive: the delivery is old.
        subject: the task id of the signed body, where it has one: the result can be fetched.
    """

    reason = "stale"

    def __init__(self, skew: float, subject: str | None = None) -> None:
        super().__init__()
        self.skew = skew
        self.subject = subject


class UnknownSource(Rejected):
    """The path names a source that is not configured."""

    status = 404
    title = "No such source"
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
    """The body is compressed; a signature is over the plain bytes."""

    status = 415
    title = "Content-Encoding is not accepted; send the body as it was signed"
    reason = "encoded"


class StoreError(WavehookError):
    """The inbox could not do what it was asked."""


class StoreUnavailable(StoreError):
    """The inbox cannot take or give anything now.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreRefused(StoreUnavailable):
    """The database is there, and refuses: asking again helps when a person has changed something.

    Attributes:
        reason: where it is, and its own words.
        todo: what to do.
    """

    def __init__(self, reason: str, todo: str) -> None:
        super().__init__(f"{reason}; {todo}")
        self.reason = reason
        self.todo = todo


class SchemaMismatch(StoreError):
    """The database's schema is not the one that this version works with.

    Attributes:
        found: the version in the database.
        expected: the version of this program.
    """

    def __init__(self, message: str, found: int, expected: int) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class ApiUnavailable(WavehookError):
    """The API does not say now how a task stands; whoever told of it must tell again.

    Attributes:
        retry_after: seconds after which it is worth telling again.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SettingsError(WavehookError):
    """Settings that cannot work.

    Attributes:
        faults: one sentence each: the setting, its value (secrets masked), what was expected.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Refused(WavehookError):
    """An outbound request that must not be made, such as one into a private network."""


class Retry(WavehookError):
    """A handler asks to be run again.

    Args:
        error: why, for the attempt's row.
        after: seconds from now at the earliest; None leaves it to the handler's retry policy.
        pause: the whole handler waits that long, not only this dispatch: for a downstream that
            answers 429 or 503 with Retry-After.
    """

    def __init__(
        self, error: str = "retry", *, after: float | None = None, pause: bool = False
    ) -> None:
        super().__init__(error)
        self.after = after
        self.pause = pause


class GiveUp(WavehookError):
    """A handler says that trying again cannot help; the dispatch is dead at once."""
