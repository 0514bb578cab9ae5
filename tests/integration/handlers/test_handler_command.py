"""The `command` handler runs real programs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from uvloop import new_event_loop

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.base import Context
from receiver.handlers.command import MAX_OUTPUT_BYTES, CommandHandler, CommandSettings, create
from submitter.prediction import JSON
from tests.support import needed
from tests.support.events import event

BODY = b'{"id": "abc", "status": "completed", "input": {"prompt": "my secret cat"}}'


EVENT = event("abc", id="wavespeed:abc $(touch x):completed", body=BODY)


def context(seconds: float = 20.0) -> Context:
    return Context("wavespeed:abc $(x):completed/run", "run", 3, deadline=time.time() + seconds)


def python(code: str, *arguments: str, **settings: Any) -> CommandHandler:
    """The handler for a Python program."""
    return create("run", {"run": [sys.executable, "-SIc", code, *arguments], **settings})


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not reaped does not."""
    needed.linux()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(*pids: int) -> bool:
    """Whether processes end, within a moment."""
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return True
        await asyncio.sleep(0.01)
    return False


async def written(path: Path) -> str:
    """A file that another process is about to put in place."""
    for _ in range(1000):
        if path.exists():
            return path.read_text().strip()
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was written")


async def test_the_event_is_on_standard_input() -> None:
    """The program reads the envelope, and its JSON output is the result."""
    echo = python("import sys, json; print(json.dumps(json.load(sys.stdin)))")
    result = await echo(EVENT, context())
    assert isinstance(result, dict)
    assert result["type"] == "prediction.completed"
    assert result["data"]["id"] == EVENT.id  # type: ignore[index,call-overload]


async def test_arguments_and_environment_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """F17: no event data in the arguments, keys escaped in the environment, no shell."""
    monkeypatch.setenv("WAVESPEED_API_KEY", "k3y")
    monkeypatch.setenv("GREETING", "hello")
    show = python(
        "import sys, os, json; print(json.dumps([sys.argv[1:], dict(os.environ)]))",
        "$HOME; `id`",
        env=["GREETING", "NOT_SET_ANYWHERE"],
    )
    result: Any = await show(EVENT, context())
    arguments, environment = result
    assert arguments == ["$HOME; `id`"]
    environment.pop("LC_CTYPE", None)  # Python's own, in a C locale
    assert environment == {
        "PATH": os.environ["PATH"],
        "GREETING": "hello",
        "WAVEHOOK_EVENT_KEY": "wavespeed:abc%20%24%28x%29:completed/run",
        "WAVEHOOK_ATTEMPT": "3",
    }


async def test_the_folder_is_the_settings(tmp_path: Path) -> None:
    """`cwd` is where the program runs, and where a relative program is found."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\npwd | sed 's/.*/\"&\"/'\n")
    program.chmod(0o755)
    run = create("run", {"run": ["./tool"], "cwd": str(tmp_path)})
    assert await run(EVENT, context()) == os.path.realpath(tmp_path)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("", None),
        ("print('no json')", None),
        ("print('{\"a\": 1}')", {"a": 1}),
        ("print('NaN')", None),
        (f"print('\"' + 'x' * {MAX_OUTPUT_BYTES - 4} + '\"')", "x" * (MAX_OUTPUT_BYTES - 4)),
        (f"print('\"' + 'x' * {MAX_OUTPUT_BYTES} + '\"')", None),
        ("import sys; sys.stdout.write('1' * 10_000_000)", None),
    ],
)
async def test_the_output_is_the_result_if_it_is_json(code: str, result: JSON) -> None:
    """F35: bounded, strict JSON, or nothing; a longer output does not stop the program."""
    assert await python(code)(EVENT, context()) == result


@pytest.mark.parametrize("number", [1, 2, 64, 99, 101, 127, 255])
async def test_any_other_exit_is_a_failure_by_policy(number: int) -> None:
    """F23: the text names the exit status, and nothing that the program printed."""
    code = f"import sys; sys.stderr.write('cat'); print('cat'); sys.exit({number})"
    with pytest.raises(Retry, match=f"^the program ended with {number}$") as retry:
        await python(code)(EVENT, context())
    assert retry.value.after is None


@pytest.mark.parametrize(
    ("output", "after"), [("30s", 30.0), ("2m\n", 120.0), ("5", 5.0), ("", None), ("soon", None)]
)
async def test_exit_75_is_later(output: str, after: float | None) -> None:
    """F27: the program can say how much later."""
    code = f"import sys; sys.stdout.write({output!r}); sys.exit(75)"
    with pytest.raises(Retry) as retry:
        await python(code)(EVENT, context())
    assert retry.value.after == after


async def test_exit_75_with_bytes_that_are_no_text_is_later() -> None:
    """F12: an output that is not UTF-8 says no time."""
    code = "import sys; sys.stdout.buffer.write(b'\\xff'); sys.exit(75)"
    with pytest.raises(Retry, match="later") as retry:
        await python(code)(EVENT, context())
    assert retry.value.after is None


async def test_exit_100_is_never_again() -> None:
    """F23: the program can give up."""
    with pytest.raises(GiveUp, match="100"):
        await python("raise SystemExit(100)")(EVENT, context())


async def test_a_program_that_is_killed_is_a_failure_by_policy() -> None:
    """F23: the text names the signal."""
    with pytest.raises(Retry, match="signal 9"):
        await python("import os; os.kill(os.getpid(), 9)")(EVENT, context())


async def test_a_program_need_not_read() -> None:
    """A program that closes its input early is no fault, however long the input is."""
    body = b'{"id": "a", "status": "completed", "x": "' + b"y" * 900_000 + b'"}'
    code = "import os; os.close(0); print(1)"
    assert await python(code)(replace(EVENT, body=body), context()) == 1


async def test_what_it_prints_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """F16: standard output and error may hold prompts, and go nowhere."""
    await python("import sys; print('cat'); sys.stderr.write('cat')")(EVENT, context())
    assert capfd.readouterr() == ("", "")


async def test_standard_error_can_be_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    """`stderr = "inherit"` is for those who know what their program prints."""
    await python("import sys; sys.stderr.write('fine')", stderr="inherit")(EVENT, context())
    assert capfd.readouterr().err == "fine"


IGNORE = "trap '' TERM"


def family(folder: Path, ignore: str = ":", grace: float = 0.1) -> CommandHandler:
    """A program with a child, both asleep, that write their ids into a file."""
    script = f"{ignore}; sleep 60 & echo $$ $! > $0.part; mv $0.part $0; wait; sleep 60"
    run = ("/bin/sh", "-c", script, str(folder / "pids"))
    return CommandHandler("/bin/sh", CommandSettings(run=run), grace=grace)


async def test_the_time_limit_ends_the_program_and_its_children(tmp_path: Path) -> None:
    """F24: nothing that the program started outlives its deadline."""
    with pytest.raises(TimeoutError, match="did not end in time"):
        await family(tmp_path)(EVENT, context(seconds=1.0))
    assert await gone(*map(int, (await written(tmp_path / "pids")).split()))


@pytest.mark.parametrize("ignore", [":", IGNORE])
async def test_a_shutdown_ends_the_program_and_its_children(tmp_path: Path, ignore: str) -> None:
    """F40: cancelling the run ends the whole group, also one that ignores SIGTERM."""
    run = asyncio.create_task(family(tmp_path, ignore)(EVENT, context()))
    pids = [int(pid) for pid in (await written(tmp_path / "pids")).split()]
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await gone(*pids)


async def test_a_second_cancel_ends_them_at_once(tmp_path: Path) -> None:
    """F40: an impatient shutdown does not wait for the grace, and leaves nothing behind."""
    run = asyncio.create_task(family(tmp_path, IGNORE, grace=30.0)(EVENT, context()))
    pids = [int(pid) for pid in (await written(tmp_path / "pids")).split()]
    run.cancel()
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 5.0)
    assert await gone(*pids)


def children() -> set[str]:
    """The processes that are ours and run."""
    needed.linux()
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            if parent == str(os.getpid()) and state != "Z":
                found.add(stat.parent.name)
    return found


async def test_a_cancel_during_the_start_leaves_nothing() -> None:
    """F40: a run that is cancelled before its program is quite there ends it all the same."""
    before = children()
    command = CommandHandler(
        "/bin/sh", CommandSettings(run=("sh", "-c", "sleep 60 & sleep 60")), grace=0.1
    )
    run = asyncio.create_task(command(EVENT, context()))
    for _ in range(2):
        await asyncio.sleep(0)
    assert children() > before
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert children() == before


async def test_a_cancel_during_a_start_that_fails_is_a_cancel() -> None:
    """F40: a missing program does not hide that the run was cancelled."""
    command = CommandHandler("/no/such/program", CommandSettings(run=("x",)))
    run = asyncio.create_task(command(EVENT, context()))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_a_program_may_end_well_when_asked(tmp_path: Path) -> None:
    """F40: SIGTERM comes first, with time to put things away."""
    code = (
        "import signal, sys, time, pathlib\n"
        "done = pathlib.Path(sys.argv[1])\n"
        "def end(*_): done.write_text('tidy\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[2]).touch()\n"
        "time.sleep(60)"
    )
    command = python(code, str(tmp_path / "done"), str(tmp_path / "ready"))
    run = asyncio.create_task(command(EVENT, context()))
    await written(tmp_path / "ready")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (tmp_path / "done").read_text() == "tidy\n"


async def test_a_deadline_that_has_passed_still_ends_the_program() -> None:
    """F24: a run that starts too late leaves nothing behind."""
    with pytest.raises(TimeoutError):
        await python("import time; time.sleep(60)")(EVENT, context(seconds=-5.0))


async def test_a_child_left_behind_does_not_hold_the_run(tmp_path: Path) -> None:
    """A program may start a service that keeps its output open; its own end is the end."""
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-SIc', 'import time; time.sleep(60)'])\n"
        "print(child.pid)"
    )
    run = (sys.executable, "-SIc", code)
    pid = await CommandHandler(sys.executable, CommandSettings(run=run), grace=0.1)(
        EVENT, context()
    )
    assert isinstance(pid, int)
    assert alive(pid)
    os.kill(pid, 9)


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """F45: runs that end well, badly and by force leave the process as it was."""

    def count() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    async def each() -> None:
        await python("print(1)")(EVENT, context())
        with pytest.raises(Retry):
            await python("raise SystemExit(3)")(EVENT, context())
        with pytest.raises(TimeoutError):
            await python("import time; time.sleep(60)")(EVENT, context(seconds=0.05))

    await each()
    before = count()
    for _ in range(5):
        await each()
    assert count() <= before


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    """The faster event loop runs programs, reads their output and ends them alike."""

    async def main() -> JSON:
        with pytest.raises(TimeoutError):
            await family(tmp_path)(EVENT, context(seconds=1.0))
        assert await gone(*map(int, (await written(tmp_path / "pids")).split()))
        return await python("import sys, json; print(len(sys.stdin.read()))")(EVENT, context())

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert isinstance(runner.run(main()), int)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_event_loop])
@pytest.mark.parametrize(
    "program", ["exit 3", "exec 0<&-; exit 3", "exec 0<&-; sleep 0.01; exit 3"]
)
def test_a_program_that_reads_nothing(
    program: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Whether it closes its input or has ended before we write, its exit status counts."""

    async def main() -> None:
        run = create("run", {"run": ["sh", "-c", program]})
        for body in [BODY, b'"%b"' % (b"x" * 1_000_000)] * 10:
            with pytest.raises(Retry, match="ended with 3"):
                await run(replace(EVENT, body=body), context())

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_event_loop])
def test_input_for_a_program_that_has_ended(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The slowest way of the same: its end is seen before its input is written."""

    async def main() -> bool:
        run = create("run", {"run": ["false"]})
        transport, started = await run._start(context())
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        await started.exited.wait()
        async with asyncio.timeout(5):
            while not pipe.is_closing():
                await asyncio.sleep(0.001)
        started.feed(transport, b"x")
        await run._close(transport, started)
        return pipe.is_closing()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main())


async def test_a_program_that_went_away_is_a_failure_by_policy(tmp_path: Path) -> None:
    """F23: it was there at the start; an upgrade may bring it back."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    run = create("run", {"run": [str(program)]})
    program.unlink()
    with pytest.raises(FileNotFoundError):
        await run(EVENT, context())


def relative(folder: Path) -> dict[str, object]:
    return {"run": ["sh"], "cwd": str(folder / "none")}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "handlers.run.run: missing, expected a list, the program and its arguments"),
        ({"run": []}, "handlers.run.run: '…', expected a list, the program"),
        ({"run": "ls -l"}, "handlers.run.run: '…', expected a list, the program"),
        ({"run": ["ls", "a\0b"]}, "handlers.run.run: '…', expected a list, the program"),
        ({"run": ["ls", 5]}, "handlers.run.run: '…', expected a text"),
        ({"run": ["no-such-tool"]}, "handlers.run.run: 'no-such-tool' is not a program here"),
        ({"run": ["/etc/passwd"]}, "handlers.run.run: '/etc/passwd' is not a program here"),
        ({"run": ["sh"], "env": ["A=B"]}, "handlers.run.env.0: 'A=B', expected"),
        ({"run": ["sh"], "stderr": "log"}, "handlers.run.stderr: 'log', expected 'discard' or"),
        ({"run": ["sh"], "shell": True}, "handlers.run.shell: unknown key"),
        (relative, "handlers.run.cwd: "),
    ],
)
def test_faults_show_at_start(
    settings: dict[str, object] | Callable[[Path], dict[str, object]], fault: str, tmp_path: Path
) -> None:
    """A program that is not there is known before the first event."""
    with pytest.raises(SettingsError) as error:
        create("run", settings(tmp_path) if callable(settings) else settings)
    assert str(error.value).startswith(fault)


def test_program_and_folder_are_both_reported() -> None:
    """All faults come at once."""
    with pytest.raises(SettingsError) as error:
        create("run", {"run": ["no-such-tool"], "cwd": "/no/such/folder"})
    assert len(error.value.faults) == 2


async def test_its_check_looks_for_program_and_folder(tmp_path: Path) -> None:
    """Either may have gone since the start; nothing is run."""
    program, folder = tmp_path / "tool", tmp_path / "folder"
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o700)
    folder.mkdir()
    run = create("run", {"run": [str(program)], "cwd": str(folder)})
    assert await run.check() == f"{program} can be run"
    assert list(folder.iterdir()) == []
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match=r"folder is not a folder that may be entered$"):
        await run.check()
    program.chmod(0o600)
    with pytest.raises(FileNotFoundError, match=r"tool is not a program that may be run$"):
        await run.check()
