"""Answers of our own for the commands, where their requests would leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import typer
from typer.testing import CliRunner

from submitter.cli import register

KLING = "kwaivgi/kling-v2.1-i2v-standard"
IMAGE = "https://example.com/first.png"
TASK: dict[str, Any] = {"id": "t1", "status": "created"}


class Vendor:
    """Gives its answers in turn, the last for ever; keeps what it was asked."""

    url = "http://127.0.0.1:9"

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = [(200, {"code": 200, "data": TASK})]
        self.models: list[Any] = []
        self.asked: list[tuple[str, dict[str, list[str]], Any]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v3/models":
            return httpx.Response(200, json={"code": 200, "data": self.models})
        input = json.loads(await request.aread() or "null")
        query = parse_qs(request.url.query.decode())
        self.asked.append((request.url.path, query, input))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, json=body)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Vendor:
    """Have a vendor answer the commands, which keep what they keep in a folder."""
    made = Vendor()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WAVESPEED_API_KEY", "key-SECRET")
    monkeypatch.setenv("WAVESPEED_BASE_URL", made.url)
    # All waits are in proportion to it.
    monkeypatch.setenv("WAVEHOOK_OVERDUE", "600ms")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: folder)
    # A command makes its own client, so that its requests are caught where they would leave.
    # Over sockets, coverage.py on Python 3.11 loses count of the frames around `asyncio.run`.
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport, "handle_async_request", lambda _, request: made.answer(request)
    )
    return made


def run(*words: str, input: str | bytes | None = None, app: typer.Typer | None = None) -> Any:
    """A command in this process."""
    if app is None:
        app = typer.Typer()
        register(app)
    return CliRunner().invoke(app, words, input=input)


def task(**fields: Any) -> tuple[int, Any]:
    """An answer about the task; without more words, one that ended well."""
    ended = {"id": "t1", "status": "completed", "outputs": ["https://cdn/1.mp4"], **fields}
    return 200, {"code": 200, "data": ended}
