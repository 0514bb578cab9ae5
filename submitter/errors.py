"""Every error of the submitter.

SubmitterError
├── BadSettings              the client's settings are wrong; carries the setting's name
├── BadInput                 nothing was sent; carries every fault at once
│   └── ContextTooLarge      the context does not fit into a URL; carries its size and the limit
├── ApiError                 the API refused, and created nothing; carries status, code, message
│   ├── AuthFailed           401 or 403: the key
│   ├── NotFound             404: no such task or model
│   ├── RateLimited          429; carries when to ask again
│   └── InsufficientBalance  the account cannot pay for it
├── Unavailable              no usable answer, and nothing was created: worth trying again
├── SubmissionUnknown        the task may exist and be billed: never to be sent again unseen
├── OverBudget               it would cost more than the cap; nothing was sent
├── LedgerUnavailable        the ledger cannot be read or written; nothing was sent
│   └── LedgerMismatch       a newer version made it, or something else
├── StillRunning             the time to wait is over, the task is not; carries what is known
└── TaskFailed               the task ended badly; carries the prediction, and lives beside it

No text or `repr` of an error holds the API key, an input or a body. The API's own text may
repeat an input; it is only in the attribute `message` of an ApiError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAX_SHOWN_FAULTS = 20

TASK_CODE_MEANINGS = {
    1200: "content moderation",
    1400: "a parameter is missing",
    1401: "a parameter is invalid",
    1402: "a media URL could not be reached",
    1403: "the execution failed",
    1405: "the task failed",
    5000: "an internal error of the API",
    5003: "the API was not available",
    5004: "the API's own time limit",
}
"""Meaning of the `code` of a failed task."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input.

    Attributes:
        path: place in the input, such as `image` or `loras[0].path`.
        message: what is wrong and what is expected, in one line; never repeats the value.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class SubmitterError(Exception):
    """Base class of all errors of the submitter."""


class BadSettings(SubmitterError):
    """The client's settings are wrong.

    Attributes:
        setting: the environment variable to correct.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting = setting


class BadInput(SubmitterError):
    """The input is wrong; nothing was sent.

    Attributes:
        faults: every fault, each with its path.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        lines = [f"  {fault}" for fault in faults[:_MAX_SHOWN_FAULTS]]
        if len(faults) > _MAX_SHOWN_FAULTS:
            lines.append(f"  and {len(faults) - _MAX_SHOWN_FAULTS} more")
        super().__init__("\n".join(["nothing was sent, because of:", *lines]))
        self.faults = tuple(faults)


class ContextTooLarge(BadInput):
    """The context is too large for the webhook URL.

    Attributes:
        size: bytes of the context as JSON.
        limit: bytes that fit.
    """

    def __init__(self, size: int, limit: int) -> None:
        advice = "keep the data where you are and pass its id"
        super().__init__([Fault("context", f"is {size} bytes of JSON, of {limit}; {advice}")])
        self.size = size
        self.limit = limit


class ApiError(SubmitterError):
    """The API refused the request; nothing was created.

    Attributes:
        status: the HTTP status.
        code: the `code` of the body, or its textual `error_code`; None if it has neither.
        message: the API's own text, one bounded line; may repeat what was sent.
    """

    advice = "the API refused the request"

    def __init__(
        self,
        *,
        status: int,
        code: int | str | None = None,
        message: str = "",
        advice: str | None = None,
    ) -> None:
        text = f"{advice or self.advice} (HTTP {status}"
        if code is not None and code != status:
            meaning = TASK_CODE_MEANINGS.get(code) if isinstance(code, int) else None
            text += f", code {code}" + (f": {meaning}" if meaning else "")
        super().__init__(f"{text})")
        self.status = status
        self.code = code
        self.message = message


class AuthFailed(ApiError):
    """The API does not accept the key."""

    advice = "the API key was refused; check WAVESPEED_API_KEY"


class NotFound(ApiError):
    """The API does not know this task or model; it keeps tasks for 7 days."""

    advice = "the API knows no such task or model; tasks are kept for 7 days"


class InsufficientBalance(ApiError):
    """The account's balance does not cover the request."""

    advice = "the account's balance does not cover this; top it up and submit again"


class RateLimited(ApiError):
    """Too many requests; this one created nothing and may be sent again.

    Attributes:
        retry_after: seconds to wait, if the API said so.
    """

    advice = "too many requests; this one created nothing"

    def __init__(
        self,
        *,
        status: int = 429,
        code: int | str | None = None,
        message: str = "",
        retry_after: float | None = None,
    ) -> None:
        wait = f"; try again in {retry_after:g} s" if retry_after is not None else ""
        super().__init__(status=status, code=code, message=message, advice=self.advice + wait)
        self.retry_after = retry_after


class Unavailable(SubmitterError):
    """The API gave no usable response, and created nothing; a retry may succeed.

    Attributes:
        reason: a few words.
        status: the HTTP status, if there was a response.
        retry_after: seconds to wait, if the API said so.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        advice: str = "the API is not available",
    ) -> None:
        super().__init__(f"{advice} ({reason})")
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


class SubmissionUnknown(SubmitterError):
    """The response to a submit was lost: the task may exist and be billed.

    The API has no idempotency key, so sending it again could pay twice. The API's history of the
    last 7 days, by model and time, tells whether it exists.

    Attributes:
        model: the model's id.
        sent_at: Unix seconds, when the request was sent.
        reason: a few words.
        status: the HTTP status, if there was a response.
        key: of the submission in the ledger, which settles it; None without a ledger.
    """

    def __init__(
        self,
        model: str,
        sent_at: float,
        reason: str,
        *,
        status: int | None = None,
        key: str | None = None,
    ) -> None:
        what_next = (
            f"`wavehook reconcile` or a running `wavehook serve` settles it (key {key})"
            if key
            else "look for it in the API's history first"
        )
        super().__init__(
            f"the task for {model} may have been created and billed ({reason}); "
            f"it was not sent again: {what_next}"
        )
        self.model = model
        self.sent_at = sent_at
        self.reason = reason
        self.status = status
        self.key = key


class OverBudget(SubmitterError):
    """The price is above `max_cost`; nothing was sent.

    Attributes:
        price: USD, as the API quoted it.
        max_cost: USD, the cap.
    """

    def __init__(self, price: float, max_cost: float) -> None:
        super().__init__(
            f"it would cost {price:g} USD, and the cap is {max_cost:g} USD; nothing was sent"
        )
        self.price = price
        self.max_cost = max_cost


class LedgerUnavailable(SubmitterError):
    """The ledger cannot be read or written now; nothing was sent."""


class LedgerMismatch(LedgerUnavailable):
    """A newer version or another program made the database; it was not changed.

    Attributes:
        found: the version in the database; 0 if another program made it.
        expected: the version of this program.
    """

    def __init__(self, message: str, found: int, expected: int) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class StillRunning(SubmitterError):
    """The timeout is over and the task has not finished; it is not lost, wait again.

    Attributes:
        key: of the submission.
        task_id: the API's id, if it is known.
        status: of the task, if it is known.
    """

    def __init__(self, key: str, task_id: str | None, status: str | None) -> None:
        name = task_id or key
        # An unknown status is kept as the API sent it, so it may not be printable.
        fit = status and len(status) <= 64 and status.isprintable()
        known = f"{name} has not ended yet (status {status if fit else 'unknown'}); it goes on"
        if task_id is None:
            known = f"the submission {name} has not ended yet, as far as is known"
        super().__init__(f"{known}, and `wavehook wait {name}` waits for it again")
        self.key = key
        self.task_id = task_id
        self.status = status


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of an error message: "did you mean X?", or nothing if no known name is similar.

    Args:
        name: the mistyped name.
        known: all valid names.
        prefix: common beginning of all names, which does not count for similarity.
    """
    from difflib import get_close_matches  # imported only where a name is wrong

    names = [each.removeprefix(prefix) for each in known]
    close = get_close_matches(name.removeprefix(prefix)[:100], names, 1, 0.6)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
