"""`command`: runs a program with the event on its standard input.

    [handlers.transcode]
    use = "command"
    run = ["/usr/local/bin/transcode", "--preset", "web"]   # program and arguments; required
    env = ["HOME"]              # variables to pass on besides PATH; default none
    cwd = "/srv/videos"         # the folder to run in; default the current one
    stderr = "discard"          # "inherit": the program's standard error goes to ours
    timeout = "10m"             # of every handler: when the program is stopped; default 30s

There is no shell, and no event data is among the arguments. The program reads the JSON of
`receiver.handlers.envelope` from standard input. Its environment has `WAVEHOOK_EVENT_KEY`, the
idempotency key, and `WAVEHOOK_ATTEMPT`.

| exit status | outcome |
|---|---|
| 0 | done; if standard output is JSON (up to 64 KiB), it is the result |
| 75 | retried; if standard output is a duration such as `30s`, not before |
| 100 | dead, not retried |
| any other, or killed by a signal | retried by the retry policy |

At the timeout, or at shutdown, the program and its children get SIGTERM, and SIGKILL two seconds
later. Its output is never logged, because it may contain prompts. The handler does not work on
Windows, which has no such signals.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.envelope import ascii_key, encode_envelope
from receiver.handlers.settings import matching, read
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON
from submitter.units import seconds

MAX_OUTPUT_BYTES = 64 * 1024
"""Of standard output; the rest is discarded."""

_EXPECTED = 'a list, the program and its arguments, such as ["/bin/tool", "-v"]'
_EXIT_RETRY, _EXIT_DEAD = 75, 100
_KILL_GRACE_S = 2.0
_Name = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]


def _arguments(value: object) -> object:
    """Check for a list; a text would have to be split by a shell."""
    if not isinstance(value, list | tuple) or not value or any("\0" in str(each) for each in value):
        raise ValueError(_EXPECTED)
    return value


class CommandSettings(BaseModel):
    """The settings of the handler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[tuple[str, ...], BeforeValidator(_arguments)] = Field(
        repr=False, description=_EXPECTED
    )
    env: tuple[_Name, ...] = ()
    cwd: Path | None = None
    stderr: Literal["discard", "inherit"] = "discard"


class CommandHandler:
    """Runs one program for each event."""

    def __init__(
        self,
        program: str,
        settings: CommandSettings,
        clock: Callable[[], float] = time.time,
        grace: float = _KILL_GRACE_S,
    ) -> None:
        self._arguments = (program, *settings.run[1:])
        self._settings = settings
        self._clock = clock
        self._grace = grace

    async def __call__(self, event: Event, context: Context) -> JSON:
        transport, run = await self._start(context)
        try:
            async with asyncio.timeout(max(context.deadline - self._clock(), 0.0)):
                run.feed(transport, encode_envelope(event))
                await run.exited.wait()
            # A child that outlives the program may keep its standard output open.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await run.drained.wait()
        except TimeoutError:
            raise TimeoutError("the program did not end in time") from None
        finally:
            await self._close(transport, run)
        return _result(transport.get_returncode(), bytes(run.output))

    async def check(self) -> str:
        """Find the program and its folder; runs nothing."""
        program, folder = self._arguments[0], self._settings.cwd
        if await asyncio.to_thread(shutil.which, program) is None:
            raise FileNotFoundError(f"{program} is not a program that may be run")
        if folder is not None and not await asyncio.to_thread(os.access, folder, os.X_OK):
            raise FileNotFoundError(f"{folder} is not a folder that may be entered")
        return f"{program} can be run"

    async def _start(self, context: Context) -> tuple[asyncio.SubprocessTransport, _ProgramRun]:
        settings = self._settings
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                _ProgramRun,
                *self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if settings.stderr == "discard" else None,
                cwd=settings.cwd,
                env={
                    **_environment(settings.env),
                    "WAVEHOOK_EVENT_KEY": ascii_key(context.key),
                    "WAVEHOOK_ATTEMPT": str(context.attempt),
                },
                # A process group of its own, so that its children get the signals too.
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # asyncio would kill the program of a cancelled start, but not its children.
            with suppress(OSError):
                await self._close(*await starting)
            raise

    async def _close(self, transport: asyncio.SubprocessTransport, run: _ProgramRun) -> None:
        """Stop a program that still runs, and its children."""
        try:
            if not run.exited.is_set():
                await self._stop(transport.get_pid(), run)
        finally:
            transport.close()

    async def _stop(self, group: int, run: _ProgramRun) -> None:
        try:
            _kill(group, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await run.exited.wait()
        finally:
            _kill(group, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await run.exited.wait()


class _ProgramRun(asyncio.SubprocessProtocol):
    """One run of the program: its bounded output, and its end."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()

    def feed(self, transport: asyncio.SubprocessTransport, data: bytes) -> None:
        """Write the program's input; a program need not read all of it."""
        # uvloop has classes of its own for pipes.
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        # The program has ended already; uvloop raises for a write to a closed pipe.
        if not pipe.is_closing():
            pipe.write(data)
            pipe.close()

    def pipe_data_received(self, _: int, data: bytes | str) -> None:
        # One byte more than the limit, so that a cut output can be recognised.
        self.output += cast("bytes", data)[: MAX_OUTPUT_BYTES + 1 - len(self.output)]

    def pipe_connection_lost(self, fd: int, _: Exception | None) -> None:
        if fd == 1:
            self.drained.set()

    def process_exited(self) -> None:
        self.exited.set()


def create(name: str, settings: Mapping[str, Any]) -> CommandHandler:
    """Make the handler."""
    if not hasattr(os, "killpg"):
        fault = (
            f"handlers.{name}.use: 'command' does not work on this system, where a program's "
            "children cannot be stopped with it; expected another handler, such as 'http'"
        )
        raise SettingsError([fault])
    chosen = read(CommandSettings, name, settings)
    faults = []
    if chosen.cwd is not None and not chosen.cwd.is_dir():
        faults.append(f"handlers.{name}.cwd: {settings['cwd']!r}, expected a folder that exists")
    program = _find(chosen.run[0], chosen.cwd)
    if program is None:
        faults.append(
            f"handlers.{name}.run: {settings['run'][0]!r} is not a program here, "
            "expected a path, or a name that is found on PATH"
        )
    if faults or program is None:
        raise SettingsError(faults)
    return CommandHandler(program, chosen)


def _find(program: str, cwd: Path | None) -> str | None:
    """The program's path, resolved once: a later change of PATH has no effect."""
    if os.sep in program:
        program = str(Path.cwd() / (cwd or "") / program)
    return shutil.which(program, path=os.environ.get("PATH", os.defpath))


def _environment(names: tuple[str, ...]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), **kept}


def _kill(group: int, number: int) -> None:
    # The group has ended already, or (on macOS) only zombies are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _result(status: int | None, output: bytes) -> JSON:
    if status == 0:
        try:
            return parse(output) if len(output) <= MAX_OUTPUT_BYTES else None
        except Unreadable:
            return None
    if status == _EXIT_DEAD:
        raise GiveUp(f"the program ended with {_EXIT_DEAD}: do not retry")
    if status == _EXIT_RETRY:
        raise Retry(f"the program ended with {_EXIT_RETRY}: retry later", after=_duration(output))
    if status is not None and status < 0:
        raise Retry(f"the program was killed by signal {-status}")
    raise Retry(f"the program ended with {status}")


def _duration(output: bytes) -> float | None:
    try:
        return seconds(output[:64].decode())
    except ValueError:
        return None
