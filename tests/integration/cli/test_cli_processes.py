"""`serve` and `worker` as real processes: started, asked over HTTP, ended by signals."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import needed

SECRET = "whsec_s3cret"
COMMAND = [sys.executable, "-c", "from receiver.cli import main; main()"]
# The settings of whoever runs the tests stay outside; all else, such as coverage's own, goes in.
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("WAVEHOOK_", "WAVESPEED_"))
} | {"WAVEHOOK_WAVESPEED_SECRETS": SECRET}
HANDLERS = """
import asyncio
from pathlib import Path
from receiver import on

@on()
async def slow(event, context):
    Path("began").touch()
    await asyncio.sleep(0.4)
    Path("ended").touch()

@on()
async def endless(event, context):
    await asyncio.sleep(3600)
"""


class Running:
    """A command that runs in the background, with its log."""

    def __init__(self, cwd: Path, *words: str) -> None:
        self._log = (cwd / "stderr").open("w+")
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=cwd,
            env=ENVIRON | {"PYTHONPATH": str(cwd)},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def line(self, event: str) -> dict[str, object]:
        """The first log line of this event, waited for."""
        for _ in range(2000):
            for line in self.log.split("\n")[:-1]:  # the last may not be whole yet
                found = json.loads(line) if line.startswith("{") else {}
                if found.get("event") == event:
                    return dict(found)
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no {event} in: {self.log}")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._log.close()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(*words: str) -> Running:
        started.append(Running(tmp_path, *words))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def post(url: object, number: int = 1, secret: str = SECRET) -> httpx.Response:
    body = json.dumps({"id": f"t{number}", "status": "completed"}).encode()
    now = int(time.time())
    key = secret.removeprefix("whsec_").encode()
    digest = hmac.new(key, b"m%d.%d.%s" % (number, now, body), hashlib.sha256).hexdigest()
    headers = {
        "webhook-id": f"m{number}",
        "webhook-timestamp": str(now),
        "webhook-signature": f"v3,{digest}",
    }
    return httpx.post(f"{url}/webhooks/wavespeed", content=body, headers=headers)


def appears(path: Path) -> bool:
    for _ in range(1000):
        if path.exists():
            return True
        time.sleep(0.01)
    return False


def states(cwd: Path) -> dict[str, str]:
    shown = subprocess.run(
        [*COMMAND, "show", "wavespeed:t1:completed", "--json"],
        cwd=cwd,
        env=ENVIRON,
        capture_output=True,
        check=True,
    )
    return {each["handler"]: each["state"] for each in json.loads(shown.stdout)["dispatches"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_receives_and_ends_by_a_signal_with_0(start: Start, number: int) -> None:
    """F40: the whole command: listens, answers by the table, drains, exits 0."""
    server = start("serve", "--port", "0")
    url = server.line("server.started")["url"]
    assert post(url).status_code == 202
    assert post(url).json() == {"id": "wavespeed:t1:completed", "duplicate": True}
    assert post(url, secret="whsec_other").status_code == 401
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert server.end(number) == 0
    assert "Traceback" not in server.log
    assert SECRET not in server.log
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""


def test_serve_lets_running_handlers_end_and_gives_back_the_rest(
    start: Start, tmp_path: Path
) -> None:
    """F40: within the grace a handler ends; one that does not is free for others at once."""
    (tmp_path / "own_handlers.py").write_text(HANDLERS)
    server = start("serve", "--port", "0", "--handlers", "own_handlers", "--grace", "1s")
    assert post(server.line("server.started")["url"]).status_code == 202
    assert appears(tmp_path / "began")
    assert server.end() == 0
    assert (tmp_path / "ended").exists()
    assert states(tmp_path) == {"slow": "done", "endless": "pending"}


def test_serve_on_a_port_that_is_taken(start: Start) -> None:
    """A second server says which port, and ends with 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start("serve", "--port", str(taken.getsockname()[1]))
        assert server.process.wait(20) == 1
    assert "is taken; choose another with --port" in server.log
    assert "Traceback" not in server.log


def test_serve_with_a_database_that_cannot_be_opened(start: Start, tmp_path: Path) -> None:
    """A start that fails over the store is a message, and exit code 1."""
    (tmp_path / "wavehook.db").write_bytes(b"something else" * 100)
    server = start("serve", "--port", "0")
    assert server.process.wait(20) == 1
    assert "Error: " in server.log
    assert "wavehook.db" in server.log
    assert "Traceback" not in server.log


def test_serve_listens_on_ipv6_where_there_is_one(start: Start) -> None:
    """The address is told as a URL that works."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    server = start("serve", "--host", "::1", "--port", "0")
    url = server.line("server.started")["url"]
    assert str(url).startswith("http://[::1]:")
    assert httpx.get(f"{url}/livez").status_code == 200
    assert server.end() == 0


def test_a_worker_handles_what_a_server_has_stored(start: Start, tmp_path: Path) -> None:
    """Two processes on one file (F22): one receives, the other acts, and both end with 0."""
    (tmp_path / "wavehook.toml").write_text('[handlers.keep]\nuse = "log"\nto = "log.jsonl"\n')
    server = start("serve", "--port", "0", "--dispatch", "external")
    url = server.line("server.started")["url"]
    assert post(url).status_code == 202
    worker = start("worker")
    worker.line("worker.started")
    assert appears(tmp_path / "log.jsonl")
    assert worker.end() == 0
    assert server.end() == 0
    assert "wavespeed:t1:completed" in (tmp_path / "log.jsonl").read_text()


def test_a_drain_that_is_stopped_gives_back_what_it_holds(start: Start, tmp_path: Path) -> None:
    """F40: a schedule's time limit ends in SIGTERM; no lease stays behind."""
    (tmp_path / "own_handlers.py").write_text(HANDLERS)
    server = start("serve", "--port", "0", "--handlers", "own_handlers", "--dispatch", "external")
    assert post(server.line("server.started")["url"]).status_code == 202
    assert server.end() == 0
    drain = start("drain", "--handlers", "own_handlers", "--grace", "1s")
    assert appears(tmp_path / "began")
    assert drain.end() == 1
    assert "stopped by a signal" in drain.log
    assert states(tmp_path) == {"slow": "done", "endless": "pending"}


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    """`wavehook … | head` is quiet."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "secret", "--new"],
            cwd=tmp_path,
            env=ENVIRON,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_reader_that_leaves_early(tmp_path: Path) -> None:
    """As in `wavehook events --json | head -1`: no traceback, no word."""
    with subprocess.Popen(
        [*COMMAND, "--help"],
        cwd=tmp_path,
        env=ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_purge_asks_a_person_at_a_terminal(answer: str, code: int, tmp_path: Path) -> None:
    """At a terminal a person is asked, and no means no."""
    subprocess.run(
        [*COMMAND, "migrate"], cwd=tmp_path, env=ENVIRON, check=True, capture_output=True
    )
    ours, theirs = needed.module("pty").openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [*COMMAND, "purge", "--older-than", "7"],
            cwd=tmp_path,
            env=ENVIRON,
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code
    assert "Remove payloads older than 7 days from" in done.stdout
    assert ("0 payloads removed" in done.stdout) is (answer == "y")
