"""The webhook secret that is fetched from the API at the start."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from receiver import build
from receiver.config import read
from receiver.errors import SettingsError
from receiver.event import Delivery

SECRET = "whsec_c2VjcmV0"


def made(tmp_path: Path, text: str = "", **environ: str) -> build.ReceiverParts:
    (tmp_path / "wavehook.toml").write_text(text)
    reading = read(environ, cwd=tmp_path)
    return build.build(reading.settings, faults=reading.faults)


def faults(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        made(tmp_path, text, **environ)
    return "\n".join(caught.value.faults)


def delivery(body: bytes, secret: str = SECRET, source: str = "wavespeed") -> Delivery:
    now = time.time()
    signed = b"m1.%d.%s" % (now, body)
    digest = hmac.new(secret.removeprefix("whsec_").encode(), signed, hashlib.sha256).hexdigest()
    headers = (
        (b"webhook-id", b"m1"),
        (b"webhook-timestamp", b"%d" % now),
        (b"webhook-signature", f"v3,{digest}".encode()),
    )
    return Delivery(source, headers, body, received_at=now)


class Api(BaseHTTPRequestHandler):
    """Gives the secret, or refuses the key."""

    def do_GET(self) -> None:
        right = self.headers["Authorization"] == "Bearer right"
        body = b'{"code":200,"data":{"secret":"whsec_fetched"}}' if right else b"{}"
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_secret_is_fetched_with_the_api_key(tmp_path: Path, api: str) -> None:
    """Without a secret in the settings, the account's own is asked for."""
    parts = made(tmp_path, WAVESPEED_API_KEY="right", WAVESPEED_BASE_URL=api)
    trusted = parts.intake.sources["wavespeed"]
    sent = delivery(b'{"id":"t","status":"failed"}', "whsec_fetched")
    assert trusted.source.verify(sent, trusted.keys, time.time()).subject == "t"


async def test_the_secret_is_fetched_inside_of_a_running_loop_too(tmp_path: Path, api: str) -> None:
    """F41: a server that builds the app from its own loop gets it as well."""
    environ = {"WAVESPEED_API_KEY": "right", "WAVESPEED_BASE_URL": api}
    assert build.app(environ, cwd=tmp_path).routes


def test_a_refused_key_is_told_with_what_to_do(tmp_path: Path, api: str) -> None:
    """F16: the fault says why the secret could not be fetched, and shows no key."""
    told = faults(tmp_path, WAVESPEED_API_KEY="wr0ng", WAVESPEED_BASE_URL=api)
    assert "WAVESPEED_API_KEY = ***: the webhook secret could not be fetched" in told
    assert "WAVEHOOK_WAVESPEED_SECRETS" in told
    assert "wr0ng" not in told
