"""`receiver.web.asgi:app` while the API that gives its secret cannot be reached."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from receiver.web.asgi import LazyApp
from tests.support.asgi import SECRET, Log, post, running


@contextmanager
def secrets_api(statuses: Iterable[int]) -> Iterator[str]:
    """An API that gives the webhook secret once it has gone through its other answers."""
    answers = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"code": 200, "data": {"secret": SECRET}}).encode()
            self.send_response(next(answers, 200))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


async def test_a_secret_that_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """F20, F41: an API that is away at the first request costs a minute, not the process."""
    now = 0.0
    app = LazyApp(clock=lambda: now)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WAVEHOOK_WAVESPEED_SECRETS", raising=False)
    monkeypatch.setenv("WAVESPEED_API_KEY", "key")
    with secrets_api([503]) as url, stamina.set_testing(True, attempts=1):
        monkeypatch.setenv("WAVESPEED_BASE_URL", url)
        statuses = [(await post(app, at=time.time())).status]
        now = 60.0
        async with running(app):
            statuses.append((await post(app, at=time.time())).status)

    assert statuses == [503, 202]
    assert "could not be fetched" in log.line("settings.refused")["faults"][0]
