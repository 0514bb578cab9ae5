"""Message about an event, in one model for all chat services; pure.

All text in it is one printable line of limited length. Headline, labels and fates are fixed texts.
Facts and notes are untrusted and not escaped here: each service escapes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from receiver.event import DispatchState, Event
from receiver.handlers.archive.result import ArchivedFile, archived_files
from receiver.handlers.base import Context
from receiver.handlers.chat.settings import ChatSettings
from receiver.handlers.chat.text import Link, clean, ending, link
from receiver.handlers.envelope import lookup
from submitter.errors import TASK_CODE_MEANINGS
from submitter.prediction import JSON, Prediction, Status
from submitter.timestamps import rfc3339_clamped

_INPUT_CODES, _SERVICE_CODES = range(1000, 2000), range(5000, 6000)

_ADVICE = {
    1200: "Change the prompt or the picture, and submit again.",
    1400: "Add the parameter that is missing; `wavehook models MODEL` lists them.",
    1401: "Correct the input; `wavehook models MODEL` lists what is allowed.",
    1402: "Use a public URL, or upload the file.",
    1403: "Submit again; if it fails again, change the input.",
    1405: "Submit again; if it fails again, change the input.",
}


def day(seconds: float) -> str:
    """Date and time in UTC, to the minute, of Unix seconds."""
    return rfc3339_clamped(seconds)[:16].replace("T", " ") + " UTC"


def span(seconds: float) -> str:
    """A duration for a person, such as `2 min 5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def meaning(code: int | None) -> str | None:
    """Meaning of a failed task's code; None without a code."""
    if not code:
        return None
    known = TASK_CODE_MEANINGS.get(code)
    return f"{known}, code {code}" if known else f"code {code}"


def advice(code: int | None, status: str) -> str:
    """Advice about a task that did not complete."""
    if code in _ADVICE:
        return _ADVICE[code]
    if code in _INPUT_CODES:
        return "Correct the input, and submit again."
    if code in _SERVICE_CODES or status == "timeout":
        return "The input is fine: submit again later."
    if status == "cancelled":
        return "The task was cancelled; submit again if you still need it."
    return "Submit again; if it fails again, change the input."


API_RETENTION_S = 7 * 24 * 3600.0
"""Seconds after a task's end for which the API keeps its outputs."""

MAX_OUTPUTS = 10
"""Listed outputs; of further ones, only the number is shown."""

_MAX_NAME_CHARS = 120
_MAX_ERROR_CHARS = 300
_MAX_NOTES = 5

_KINDS = {
    **dict.fromkeys(("mp4", "webm", "mov", "avi", "mkv"), "video"),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "avif", "bmp"), "image"),
    **dict.fromkeys(("mp3", "wav", "ogg", "flac", "m4a"), "audio"),
}


@dataclass(frozen=True, slots=True)
class Output:
    """One output.

    Attributes:
        label: such as `Video` or `Image 2`.
        kind: `video`, `image`, `audio` or `file`.
        url: link for a person; None if there is no link, or it must not be shown.
        fate: how long the link works, or why there is none.
        lasting: True for a permanent link.
        source: the API's URL; None if it has expired or must not be shown.
    """

    label: str
    kind: str
    url: Link | None
    fate: str
    lasting: bool = False
    source: str | None = None

    def file(self, ending: str) -> str:
        """Name of its file, such as `video-1.mp4`."""
        return f"{self.label.lower().replace(' ', '-')}.{ending}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a task did not complete.

    Attributes:
        meaning: meaning of its code.
        advice: what to do.
        said: the API's error text.
    """

    meaning: str | None
    advice: str
    said: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """Content of a message.

    Attributes:
        headline: the event in a few words.
        good: True for success, False for failure, None for any other event.
        task: the task's id, or the event's if it has none.
        key: idempotency key, the same in every retry.
        type: type of the event, if the headline does not tell it.
        model: the model's id.
        prompt: the prompt, truncated.
        duration: length of the clip.
        cost: with its currency.
        took: run time of the task.
        user: the requesting user.
        outputs: in order.
        more: number of outputs that are not listed.
        failure: reason of a failure.
        notes: further remarks, such as a failed archive.
    """

    headline: str
    good: bool | None
    task: str
    key: str
    type: str | None = None
    model: str | None = None
    prompt: str | None = None
    duration: str | None = None
    cost: str | None = None
    took: str | None = None
    user: str | None = None
    outputs: tuple[Output, ...] = ()
    more: int = 0
    failure: Failure | None = None
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Known facts of the task: names and values."""
        failure = self.failure
        named = (
            ("Type", self.type),
            ("Why", failure and failure.meaning),
            ("The API said", failure and failure.said),
            ("What to do", failure and failure.advice),
            ("Model", self.model),
            ("Length", self.duration),
            ("Cost", self.cost),
            ("Took", self.took),
            ("Asked by", self.user),
        )
        return [(name, value) for name, value in named if value]

    @property
    def rest(self) -> str | None:
        """Line with the number of outputs that are not listed."""
        return f"and {self.more} more" if self.more else None


def compose(event: Event, context: Context, now: float, settings: ChatSettings) -> Message:
    """Compose the message of an event.

    Args:
        event: any event, also one that is not a prediction.
        context: of the run; earlier handlers may have kept outputs, or be dead.
        now: Unix seconds.
        settings: of the handler.
    """
    task = clean(event.subject or event.id, _MAX_NAME_CHARS)
    user = lookup(event.context, settings.user_from)
    # In Python, True is an int.
    is_name = isinstance(user, str | int) and not isinstance(user, bool)
    name = clean(str(user), _MAX_NAME_CHARS) if is_name else None
    kind = clean(event.type, _MAX_NAME_CHARS)
    prediction = event.prediction
    if prediction is None:
        headline = "An event that cannot be read" if event.parked else "New event"
        notes = _dead(context, None)
        return Message(headline, None, task, context.key, kind, user=name or None, notes=notes)
    ends = (event.occurred_at or event.received_at) + API_RETENTION_S
    shown = _outputs(prediction, context, now, ends)
    ending_links = ends if any(each.url and not each.lasting for each in shown) else None
    given = prediction.input or {}
    prompt, length = given.get("prompt"), _amount(given.get("duration"))
    cost = _amount(lookup(event.context, settings.cost_from))
    cost = _amount(prediction.raw.get("cost")) if cost is None else cost
    took = _took(prediction, event)
    return Message(
        headline=_headline(prediction, shown),
        good=prediction.succeeded if prediction.terminal else None,
        task=task,
        key=context.key,
        type=None if prediction.terminal else kind,
        model=clean(event.model or prediction.model or "", _MAX_NAME_CHARS) or None,
        prompt=clean(prompt, settings.prompt) or None if isinstance(prompt, str) else None,
        duration=f"{length:g} s" if length else None,
        cost=None if cost is None else f"{cost:.4g} USD",
        took=None if took is None else span(took),
        user=name or None,
        outputs=shown,
        more=len(prediction.outputs) - len(shown),
        failure=_failure(prediction),
        notes=_dead(context, ending_links),
    )


def _headline(prediction: Prediction, shown: tuple[Output, ...]) -> str:
    match prediction.status:
        case Status.COMPLETED:
            count = len(prediction.outputs)
            if count == 0:
                return "Completed, without an output"
            kinds = Counter(each.kind for each in shown)
            kind = shown[0].kind if len(kinds) == 1 else "output"
            many = "audio files" if kind == "audio" else f"{kind}s"
            return f"{kind.capitalize()} ready" if count == 1 else f"{count} {many} ready"
        case Status.FAILED:
            return "Task failed"
        case Status.TIMEOUT:
            return "Task timed out"
        case Status.CANCELLED:
            return "Task cancelled"
        case _:
            return "Task update"


def _failure(prediction: Prediction) -> Failure | None:
    if not prediction.terminal or prediction.succeeded:
        return None
    code = prediction.code
    said = clean(prediction.error or "", _MAX_ERROR_CHARS)
    return Failure(meaning(code), advice(code, prediction.status), said or None)


def _outputs(
    prediction: Prediction, context: Context, now: float, ends: float
) -> tuple[Output, ...]:
    kept: dict[str, ArchivedFile] = {}
    for file in archived_files(context):
        if file.source not in kept or kept[file.source].url is None:
            kept[file.source] = file
    flags = prediction.has_nsfw_contents
    return tuple(
        _output(
            url,
            number if len(prediction.outputs) > 1 else None,
            kept.get(url),
            hidden=number <= len(flags) and flags[number - 1],
            until=ends if now < ends else None,
        )
        for number, url in enumerate(prediction.outputs[:MAX_OUTPUTS], 1)
    )


def _output(
    source: str, number: int | None, kept: ArchivedFile | None, *, hidden: bool, until: float | None
) -> Output:
    kind = _KINDS.get(ending(source), "file")
    if kept is not None and kept.type.partition("/")[0] in ("video", "image", "audio"):
        kind = kept.type.partition("/")[0]
    label = kind.capitalize() if number is None else f"{kind.capitalize()} {number}"
    if hidden:
        return Output(label, kind, None, "flagged as not safe for work, and not shown")
    own = link(source)
    live_source = source if own and until else None
    if kept is not None and kept.url and (lasting := link(kept.url)):
        return Output(label, kind, lasting, "kept", lasting=True, source=live_source)
    prefix = "kept, without a public link; " if kept is not None else ""
    if until is None:
        return Output(label, kind, None, f"{prefix}the API has deleted it after 7 days")
    if own is None:
        return Output(label, kind, None, f"{prefix}its link cannot be shown")
    return Output(
        label, kind, own, f"{prefix}this link expires on {day(until)}", source=live_source
    )


def _dead(context: Context, ends: float | None) -> tuple[str, ...]:
    """A note for each earlier handler whose dispatch is dead."""
    return tuple(
        clean(f"{name} failed: {dispatch.error or 'no reason is known'}", 200)
        + (f"; the links here expire on {day(ends)}" if ends is not None else "")
        for name, dispatch in sorted(context.earlier.items())[:_MAX_NOTES]
        if dispatch.state is DispatchState.DEAD
    )


def _took(prediction: Prediction, event: Event) -> float | None:
    if prediction.inference_ms is not None:
        return _amount(prediction.inference_ms / 1000)
    if prediction.created_at is None or not event.occurred_at or not prediction.terminal:
        return None
    return _amount(event.occurred_at - prediction.created_at.timestamp())


def _amount(value: JSON) -> float | None:
    """A non-negative number below 1e9, from a number or its text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e9 else None
