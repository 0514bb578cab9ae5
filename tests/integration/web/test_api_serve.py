"""The API of a real `wavehook serve`: ended by a signal, and beside another process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.cli.test_cli_processes import Running, post

TOKEN = "s3same"
HEADERS = {"authorization": f"Bearer {TOKEN}"}

Start = Callable[[], tuple[Running, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts receivers on one file that outlive a test, unless their waits are ended for them."""
    (tmp_path / "wavehook.toml").write_text(f'[wavehook]\nadmin_token = "{TOKEN}"\n')
    database = f"sqlite:///{tmp_path / 'wavehook.db'}"
    started: list[Running] = []

    def begin() -> tuple[Running, str]:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        config = os.fspath(tmp_path / "wavehook.toml")
        words = ["--config", config, "--database", database, "--port", "0", "--grace", "300s"]
        started.append(Running(folder, "serve", *words))
        return started[-1], str(started[-1].line("server.started")["url"])

    yield begin
    for each in started:
        each.close()


def polling(url: str, path: str) -> socket.socket:
    """A connection whose long poll the server has begun."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), 60)
    line = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    connection.sendall(line.encode())
    # Who was served twice on a connection that came later was served after it.
    with httpx.Client(base_url=url) as client:
        for _ in range(2):
            assert client.get("/livez").status_code == 200
    return connection


def test_a_signal_ends_the_waits_at_once(start: Start) -> None:
    """F40: a stop waits for no long poll, however long its grace; each is answered."""
    server, url = start()
    with (
        polling(url, "/api/predictions/t1?wait=60") as one,
        polling(url, "/api/predictions?after=0&wait=60") as news,
    ):
        assert server.end() == 0
        assert one.recv(65_536).startswith(b"HTTP/1.1 204 ")
        assert news.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in server.log
    assert TOKEN not in server.log


def test_two_receivers_on_one_file(start: Start) -> None:
    """F22: who waits at one is told of the webhook that went to the other."""
    (_, here), (_, there) = start(), start()
    with polling(there, "/api/predictions/t1?wait=60") as waiting:
        assert post(here).status_code == 202
        assert waiting.recv(65_536).startswith(b"HTTP/1.1 200 ")
    news = httpx.get(f"{there}/api/predictions?after=0", headers=HEADERS).json()
    assert [each["event_id"] for each in news["predictions"]] == ["wavespeed:t1:completed"]
