"""What the messages say in our own words: moments, spans of time, failures and what to do."""

from __future__ import annotations

from receiver.handlers.envelope import moment
from submitter.errors import MEANINGS

_REQUEST, _API = range(1000, 2000), range(5000, 6000)

_ADVICE = {
    1200: "Change the prompt or the picture, and submit again.",
    1400: "Add the parameter that is missing; `wavehook models MODEL` lists them.",
    1401: "Correct the input; `wavehook models MODEL` lists what is allowed.",
    1402: "Give a URL that is open to everybody, or upload the file.",
    1403: "Submit again; where it fails again, change the input.",
    1405: "Submit again; where it fails again, change the input.",
}


def day(seconds: float) -> str:
    """Unix seconds as a moment in UTC, to the minute."""
    return moment(seconds)[:16].replace("T", " ") + " UTC"


def span(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def meaning(code: int | None) -> str | None:
    """What the code of a failed task says; None where there is none."""
    if not code:
        return None
    known = MEANINGS.get(code)
    return f"{known}, code {code}" if known else f"code {code}"


def advice(code: int | None, status: str) -> str:
    """What to do about a task that ended badly."""
    if code in _ADVICE:
        return _ADVICE[code]
    if code in _REQUEST:
        return "Correct the input, and submit again."
    if code in _API or status == "timeout":
        return "Nothing is wrong with the input: submit again later."
    if status == "cancelled":
        return "Somebody ended it; submit again where it is still wanted."
    return "Submit again; where it fails again, change the input."
