"""The handlers' contract over the chat handlers, before a server that takes whatever it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from receiver.handlers import apprise, discord, slack, teams, telegram
from receiver.testing import HandlerContract

COMMON = {
    "target_from": "notify.chat",
    "user_from": "who",
    "cost_from": "paid",
    "prompt": 100,
    "template": "{{ prompt }} for {{ user }}: {{ context.who }}",
}


class Answers(BaseHTTPRequestHandler):
    """Says what is a success to each of the services, and has one video."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    said = b'{"ok": true, "id": "1", "ts": "1.1", "result": {"message_id": 1}}'

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_POST()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """It outlives the handler's event loops."""

    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A run that is cancelled breaks off; that is no news."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestSlack(HandlerContract):
    factory = staticmethod(slack.create)
    secrets = ("token",)

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        self.settings = {
            **COMMON,
            "token": "xoxb-t0ken-of-the-tests",
            "channel": "C0123",
            "targets": {"a": "C0456"},
            "api": url,
            "allow": ["127.0.0.1"],
            "upload": "1MiB",
        }


class TestSlackWebhook(HandlerContract):
    factory = staticmethod(slack.create)
    secrets = ("url", "targets")

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        targets = {"a": f"{url}/t0ken-a"}
        allow = ["127.0.0.1"]
        self.settings = {**COMMON, "url": f"{url}/t0ken", "targets": targets, "allow": allow}


class TestDiscord(HandlerContract):
    factory = staticmethod(discord.create)
    secrets = ("url", "targets")

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        targets = {"a": f"{url}/t0ken-a"}
        allow = ["127.0.0.1"]
        self.settings = {**COMMON, "url": f"{url}/t0ken", "targets": targets, "allow": allow}
        self.settings["upload"] = "1MiB"


class TestTeams(HandlerContract):
    factory = staticmethod(teams.create)
    secrets = ("url", "targets")

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        targets = {"a": f"{url}/t0ken-a"}
        allow = ["127.0.0.1"]
        self.settings = {**COMMON, "url": f"{url}/t0ken", "targets": targets, "allow": allow}


class TestTeamsToNobody(HandlerContract):
    """What a handler stands on need not be there for its contract."""

    factory = staticmethod(teams.create)
    settings = {"url": "https://127.0.0.1:9/t0ken"}
    secrets = ("url",)


class TestTelegram(HandlerContract):
    factory = staticmethod(telegram.create)
    secrets = ("token",)

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        self.settings = {
            **COMMON,
            "token": "123:t0ken-of-the-tests",
            "chat": "@channel",
            "targets": {"a": "-77"},
            "api": url,
            "allow": ["127.0.0.1"],
            "upload": "1MB",
        }


class TestApprise(HandlerContract):
    factory = staticmethod(apprise.create)
    secrets = ("url", "targets")

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        place = url.removeprefix("http://")
        targets = {"a": f"json://user:t0ken-a@{place}"}
        self.settings = {**COMMON, "url": [f"json://user:t0ken@{place}"], "targets": targets}
