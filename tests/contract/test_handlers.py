"""The handlers' contract over every built-in, as a stranger's package runs it over its own."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from receiver.handlers import command, http, log
from receiver.testing import HandlerContract

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


class Answers(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """It outlives the handler's event loops."""

    request_queue_size = 64
    daemon_threads = True


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/t0ken"
        server.shutdown()
        thread.join()


class TestLog(HandlerContract):
    factory = staticmethod(log.create)

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.settings = {"to": str(tmp_path / "log"), "outputs": True}


class TestCommand(HandlerContract):
    factory = staticmethod(command.create)
    settings = {"run": ["cat"], "env": ["HOME"], "cwd": "/", "stderr": "inherit"}


class TestHttp(HandlerContract):
    factory = staticmethod(http.create)
    secrets = ("url", "secret", "headers")

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        headers = {"Authorization": "Bearer t0ken"}
        allow = ["127.0.0.1"]
        self.settings = {"url": url, "secret": [SECRET], "allow": allow, "headers": headers}


class TestHttpToNobody(HandlerContract):
    """What a handler stands on need not be there for its contract."""

    factory = staticmethod(http.create)
    settings = {"url": "https://127.0.0.1:9/t0ken", "secret": SECRET}
    secrets = ("url", "secret")
