"""Lambda's side of its runtime API on loopback, and the real runtime interface client against it.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import needed

PATIENCE = 60.0
"""Seconds; only a test that fails waits as long."""

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:wavehook"


class _Service(BaseHTTPRequestHandler):
    """`invocation/next`, `response` and `error`."""

    server: RuntimeApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        event = self.server.events.get()
        if event is None:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(event)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", "request-1")
        deadline = (time.time() + self.server.limit) * 1000
        self.send_header("Lambda-Runtime-Deadline-Ms", f"{deadline:.0f}")
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", ARN)
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        answer = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.put((self.path.rpartition("/")[2], json.loads(answer)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class RuntimeApi(ThreadingHTTPServer):
    """What the runtime interface client asks.

    Args:
        limit: seconds that the function has for an event.
    """

    daemon_threads = True

    def __init__(self, limit: float) -> None:
        super().__init__(("127.0.0.1", 0), _Service)
        self.limit = limit
        self.events: queue.Queue[bytes | None] = queue.Queue()
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()

    def handle_error(self, request: object, client_address: object) -> None:
        """The connection of a function that was killed."""


class Function:
    """A function in its process.

    Args:
        api: that it asks for events.
        process: the runtime interface client's.
        log: what the function writes.
    """

    def __init__(self, api: RuntimeApi, process: subprocess.Popen[bytes], log: Path) -> None:
        self._api = api
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text()

    def invoke(self, event: object) -> Any:
        """What the function answers."""
        self._api.events.put(json.dumps(event).encode())
        try:
            kind, answer = self._api.answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(self.log) from None
        assert kind == "response", (answer, self.log)
        return answer

    def freeze(self) -> None:
        """Let nothing of it run, as Lambda does after an answer."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, as Lambda does before the next event."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def function(
    handler: str,
    folder: Path,
    environ: Mapping[str, str],
    log: Path,
    *,
    limit: float = 30.0,
    command: tuple[str, ...] = (sys.executable,),
) -> Iterator[Function]:
    """A function as Lambda runs it, until the end of the block.

    Args:
        handler: module and name.
        folder: with the module, and the working directory.
        environ: of the function.
        log: the file for what it writes.
        limit: seconds that it has for an event.
        command: the Python.
    """
    needed.linux()
    needed.module("awslambdaric")
    with RuntimeApi(limit) as api, log.open("wb") as stream:
        serving = threading.Thread(target=api.serve_forever, args=(0.01,))
        serving.start()
        process = subprocess.Popen(
            [*command, "-m", "awslambdaric", handler],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "wavehook",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                **{name: os.environ[name] for name in os.environ if name.startswith("COV_")},
                **environ,
            },
            stdout=stream,
            stderr=stream,
        )
        try:
            yield Function(api, process, log)
        finally:
            process.kill()
            process.wait()
            api.events.put(None)
            api.shutdown()
            serving.join()
