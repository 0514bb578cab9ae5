"""The handlers' contract over every built-in, as a stranger's package runs it over its own.

Where a handler stands on a service, a stand-in answers that takes everything, or nobody does.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from receiver.handlers.loading import GROUP
from receiver.testing import HandlerContract

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
URL = "http://stand-in/t0ken"
NOBODY = "127.0.0.1:9"
CHAT: dict[str, Any] = {
    "allow": ["127.0.0.1"],
    "targets": {"team": URL},
    "target_from": "channel",
    "prompt": 100,
    "template": "{{ prompt }}",
}
BOT = CHAT | {"targets": {"team": "C0123ABCDEF"}}

HANDLERS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("log", {"to": "events.jsonl", "outputs": True}, ()),
    ("command", {"run": ["cat"], "env": ["HOME"], "cwd": "/", "stderr": "inherit"}, ()),
    (
        "http",
        {"url": URL, "secret": [SECRET], "allow": "127.0.0.1", "headers": {"X-Key": "t0ken"}},
        ("url", "secret", "headers"),
    ),
    ("http", {"url": f"https://{NOBODY}/t0ken", "secret": SECRET}, ("url", "secret")),
    (
        "archive",
        {
            "to": "made",
            "public_url": "https://cdn.example/made",
            "allow": "127.0.0.1",
            "name": "{context.a}/{task}{sha256}{ext}",
            "manifest": "{model}/{task}.json",
            "types": ["*"],
            "max_size": "1MB",
            "expires": "1h",
        },
        (),
    ),
    ("slack", {"url": URL, **CHAT}, ("url", "targets")),
    (
        "slack",
        {"token": "xoxb-t0ken-t0ken", "channel": "C0123ABCDEF", "api": URL, **BOT},
        ("token",),
    ),
    ("discord", {"url": URL, **CHAT}, ("url", "targets")),
    ("teams", {"url": URL, **CHAT}, ("url", "targets")),
    (
        "telegram",
        {"token": f"123456789:{'t0ken' * 7}", "chat": "-100123", "api": URL, "allow": "127.0.0.1"},
        ("token",),
    ),
    ("apprise", {"url": f"json://me:t0ken@{NOBODY}/"}, ("url",)),
    ("nats", {"url": f"nats://me:t0ken@{NOBODY}", "stream": "X", "create_stream": True}, ("url",)),
    ("rabbitmq", {"url": f"amqp://me:t0ken@{NOBODY}/", "queue": "x", "declare": True}, ("url",)),
    ("redis", {"url": f"redis://me:t0ken@{NOBODY}/0", "stream": "x", "maxlen": 5}, ("url",)),
    ("mqtt", {"url": f"mqtt://me:t0ken@{NOBODY}", "topic": "x/{type}", "retain": True}, ("url",)),
    ("aws", {"to": "arn:aws:sns:us-east-1:123456789012:x", "endpoint": f"http://{NOBODY}"}, ()),
    (
        "kafka",
        {"servers": NOBODY, "options": {"test.mock.num.brokers": 1, "sasl.password": "t0ken"}},
        ("options",),
    ),
]


class Answers(BaseHTTPRequestHandler):
    """Takes everything, and says what each service says then."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body, or the second waits for an ACK
    body = json.dumps({"ok": True, "id": "1", "ts": "1.2", "result": {"message_id": 1}}).encode()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_PATCH = do_POST  # noqa: N815 - the names are http.server's

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """It outlives the handler's event loops."""

    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Of a handler that was cancelled."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/t0ken"
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:apprise")
class TestHandlers(HandlerContract):
    @pytest.fixture(autouse=True, params=HANDLERS, ids=lambda case: case[0])
    def handler(
        self,
        request: pytest.FixtureRequest,
        url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name, settings, self.secrets = request.param
        self.settings = json.loads(json.dumps(settings).replace(URL, url))
        [found] = entry_points(group=GROUP, name=name)
        self.factory = found.load()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "t0ken")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "t0ken")


def test_no_built_in_is_left_out() -> None:
    """A handler that is offered keeps the contract."""
    offered = {
        each.name for each in entry_points(group=GROUP) if each.value.startswith("receiver.")
    }
    assert offered == {name for name, _, _ in HANDLERS}
