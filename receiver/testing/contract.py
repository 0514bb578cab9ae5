"""What every handler has to keep, as tests that a package of handlers runs over its own.

    class TestPublish(HandlerContract):
        factory = staticmethod(create)
        settings = {"url": "https://127.0.0.1:9", "token": "t0ken-of-the-tests"}
        secrets = ("token",)

Any runner that finds methods named `test_…` runs them, such as pytest; no plug-in is needed. What
the handler stands on need not be there: that a run fails is no fault, but how it fails may be one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from receiver.dispatch.attempt import MAX_RESULT_BYTES, Exited, TimedOut, compact_json, run
from receiver.errors import SettingsError
from receiver.event import Claim, Dispatch, Event
from receiver.handlers.base import Context, Factory, Handler, Installed, mask
from receiver.handlers.loading import make
from receiver.handlers.retry import describe
from receiver.handlers.routing import Route
from receiver.testing.events import context, event
from receiver.testing.hostile import NOWHERE, hostile_events
from receiver.testing.listening import logged
from receiver.testing.looping import on_a_loop

T = TypeVar("T")

NAME = "tested"

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    UnicodeError,
    TimedOut,
    Exited,
)
"""What no run may end with: it would be tried again and again, and nobody would know why."""

WRONG = [[{"no": ["such", "type"]}]]
"""What no setting takes."""

PRIVATE = {"prompt": "prompt-0b7e", "context": "context-4f1d"}
"""What is in every event, and in no error or line of a log."""


class HandlerContract:
    """Inherit it, and say what is to be tested.

    Attributes:
        factory: `create(name, settings)`; as a class attribute, in `staticmethod`.
        settings: with which it makes a handler; the more of them, the more is tried.
        secrets: the names of those that must never be shown.
        patience: seconds for a run, a close or a check.
    """

    factory: Factory
    settings: Mapping[str, Any] = MappingProxyType({})
    secrets: Collection[str] = ()
    patience = 10.0

    def test_an_unknown_setting_is_a_fault(self) -> None:
        """It is a mistyped one, and is told with the handler's name."""
        self._has_fault("no_such_setting", 1)

    def test_a_setting_of_the_wrong_type_is_a_fault(self) -> None:
        """Each is checked at the start, and not at the first event."""
        for key in self.settings:
            self._has_fault(key, WRONG)

    def test_a_missing_setting_is_a_fault_or_has_a_default(self) -> None:
        """Without one the factory makes a handler, or says what is missing."""
        for key in self.settings:
            faults = _faults(self.factory, self._without(key))
            _none(f"without {key}: {fault}" for fault in faults if "cannot be made" in fault)

    def test_secrets_are_never_shown(self) -> None:
        """Neither in a fault of theirs or of another setting, nor by the handler's own text."""
        for key in self.secrets:
            for wrong in ("s3cret \0", ["s3cret"], {"name": "s3cret"}, [[{"name": "s3cret"}]]):
                faults = _faults(self.factory, {**self.settings, key: wrong})
                _none(f"{key} is shown: {fault}" for fault in faults if "s3cret" in fault)
        shown = [repr(self._made())]
        for key in self.settings:
            shown += _faults(self.factory, self._without(key))
            shown += _faults(self.factory, {**self.settings, key: WRONG})
        _none(f"a secret is shown: {text}" for text in shown if self._tells(text))

    def test_a_strange_event_ends_well_or_with_a_reason(self) -> None:
        """Whatever a verified event holds, the run ends as the port allows."""
        events = hostile_events()
        outcomes = self._outcomes(*events.values())
        _none(
            f"{strange}: {fault}"
            for strange, outcome in zip(events, outcomes, strict=True)
            if (fault := _fault(outcome))
        )

    def test_what_it_returns_is_kept(self) -> None:
        """A result is small JSON, or it is lost to the handlers that come after."""
        outcomes = self._outcomes(_event(), _event("failed"))
        _none(fault for each in outcomes if (fault := _unkept(each)))

    def test_nothing_private_is_in_errors_and_logs(self) -> None:
        """No secret, prompt or context of an event, at any level of the log."""
        with logged() as lines:
            outcomes = self._outcomes(_event(), _event("failed"))
        told = [f"{each} {each!r}" for each in outcomes if isinstance(each, Exception)]
        _none(
            f"private: {line}"
            for line in lines + told
            if self._tells(line) or any(text in line for text in PRIVATE.values())
        )

    def test_a_second_run_ends_as_the_first(self) -> None:
        """Delivery is at least once: a run that was cut off comes again, under the same key."""
        same = _event()
        first, second = self._outcomes(same, same)
        _none([_differ(first, second)] if _kind(first) != _kind(second) else [])

    def test_many_runs_at_once_end_as_one(self) -> None:
        """The dispatcher runs as many as `concurrency` says."""
        (alone,) = self._outcomes(_event())

        async def at_once(handler: Handler) -> list[object]:
            events = [_event(id=f"task-{number}") for number in range(20)]
            return await asyncio.gather(*(self._run(handler, each) for each in events))

        together = self._with_handler(at_once)
        _none(_differ(alone, each) for each in together if _kind(each) != _kind(alone))

    def test_it_can_be_cancelled_at_any_time(self) -> None:
        """At its time limit, and when the process stops (F24, F40)."""

        async def cancel(handler: Handler) -> list[str]:
            late = []
            for turns in (0, 1, 2, 3, 5, 10, 20, 50):
                made = _event(id=f"task-{turns}")
                # Not as the dispatcher runs it, which leaves behind what goes on.
                task = asyncio.ensure_future(handler(made, context(made)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                _, going = await asyncio.wait({task}, timeout=self.patience)
                late += [f"cancelled after {turns} turns it goes on" for _ in going]
                if task.done() and not task.cancelled():
                    task.exception()  # how it ended is for the other tests
            return late

        _none(self._with_handler(cancel))

    def test_it_closes_twice_and_works_again_on_another_loop(self) -> None:
        """A serverless platform starts and stops the app around every request (F41)."""
        handler = self._made()

        async def live() -> object:
            before = asyncio.all_tasks()
            outcome = await self._run(handler, _event())
            for _ in range(2):
                await self._close(handler)
            left = asyncio.all_tasks() - before
            if left:
                await asyncio.wait(left, timeout=1.0)
            _none(f"after close() it goes on: {task}" for task in left if not task.done())
            return outcome

        first, second = on_a_loop(live()), on_a_loop(live())
        _none([_differ(first, second)] if _kind(first) != _kind(second) else [])

    def test_its_check_says_something(self) -> None:
        """`wavehook check` shows it: one sentence, or what is wrong, without a secret."""

        async def check(handler: Handler) -> str:
            try:
                async with asyncio.timeout(self.patience):
                    found = await getattr(handler, "check", _nothing_to_try)()
            except Exception as error:  # noqa: BLE001 - what it is, is what is looked at
                _none([f"check: {describe(error)}"] if isinstance(error, FAULTS) else [])
                return describe(error)
            return str(found)

        said = self._with_handler(check)
        _none([] if said.strip() else ["check: it says nothing"])
        _none([f"a secret is shown: {said}"] if self._tells(said) else [])

    def _made(self) -> Handler:
        return _made(self.factory, self.settings)

    def _without(self, key: str) -> dict[str, Any]:
        return {name: value for name, value in self.settings.items() if name != key}

    def _tells(self, text: str) -> bool:
        hidden = [each for key in self.secrets for each in _texts(self.settings[key])]
        return mask(text, hidden) != text

    def _has_fault(self, key: str, value: object) -> None:
        faults = _faults(self.factory, {**self.settings, key: value})
        if not any(fault.startswith(f"handlers.{NAME}.{key}") for fault in faults):
            raise AssertionError(f"{key} = {value!r} is taken, or told without its name: {faults}")

    def _outcomes(self, *events: Event) -> list[object]:
        """What runs came to, one after the other: a value or an exception."""

        async def in_turn(handler: Handler) -> list[object]:
            return [await self._run(handler, each) for each in events]

        return self._with_handler(in_turn)

    def _with_handler(self, work: Callable[[Handler], Awaitable[T]]) -> T:
        handler = self._made()

        async def live() -> T:
            try:
                return await work(handler)
            finally:
                await self._close(handler)

        return on_a_loop(live())

    async def _run(self, handler: Handler, event: Event) -> object:
        """As the dispatcher runs it; but what it returned comes back as it is."""
        returned: list[object] = []

        async def keep(event: Event, context: Context) -> None:
            returned.append(await handler(event, context))

        installed = Installed(Route(NAME), keep, timeout=self.patience)
        dispatch = Dispatch(event.id, NAME, attempt=1, tries=1)
        _, error = await run(installed, Claim(dispatch, event), time.time(), lambda: 1.0)
        return error if error is not None else returned[0]

    async def _close(self, handler: Handler) -> None:
        async with asyncio.timeout(self.patience):
            await getattr(handler, "close", _nothing_to_close)()


def _event(status: str = "completed", **fields: Any) -> Event:
    outputs = [NOWHERE] if status == "completed" else []
    return event(
        status,
        outputs=outputs,
        context={"who": PRIVATE["context"]},
        input={"prompt": PRIVATE["prompt"], "image": NOWHERE},
        **fields,
    )


async def _nothing_to_close() -> None:
    """As a handler without `close`."""


async def _nothing_to_try() -> str:
    return "nothing to try"


def _made(factory: Factory, settings: Mapping[str, Any]) -> Handler:
    return make(NAME, NAME, lambda: factory, settings)


def _faults(factory: Factory, settings: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        _made(factory, settings)
    except SettingsError as error:
        return error.faults
    return ()


def _fault(outcome: object) -> str | None:
    """Why a run must not have ended so."""
    if isinstance(outcome, Exception):
        return describe(outcome) if isinstance(outcome, FAULTS) else None
    return _unkept(outcome)


def _unkept(outcome: object) -> str | None:
    """Why what a run returned is lost."""
    try:
        if isinstance(outcome, Exception) or len(compact_json(outcome)) <= MAX_RESULT_BYTES:
            return None
    except (TypeError, ValueError, RecursionError):
        pass
    return (
        f"{type(outcome).__name__} is no JSON of at most {MAX_RESULT_BYTES} bytes: it is not kept"
    )


def _kind(outcome: object) -> type | None:
    return type(outcome) if isinstance(outcome, Exception) else None


def _differ(first: object, second: object) -> str:
    told = [describe(each) if isinstance(each, Exception) else "done" for each in (first, second)]
    return f"one run came to {told[0]!r}, another to {told[1]!r}"


def _texts(value: object) -> Iterator[str]:
    """The texts in a setting, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _none(faults: Iterable[str]) -> None:
    """Fail with all faults, where there are any."""
    found = list(faults)
    if found:
        raise AssertionError("\n".join(found))
