"""The command `wait`, against answers of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.scripted_vendor import IMAGE, KLING, Vendor, install, run, task


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vendor:
    return install(monkeypatch, tmp_path)


def submit(key: str) -> Any:
    return run("submit", KLING, "-i", "prompt=p", "-i", f"image={IMAGE}", "--key", key)


def test_a_strangers_task(vendor: Vendor) -> None:
    """A task that the database does not know is asked for at the API."""
    vendor.answers = [task()]
    done = run("wait", "t1")
    assert (done.exit_code, done.stdout) == (0, "t1 completed\nhttps://cdn/1.mp4\n")


def test_by_key_and_by_id(vendor: Vendor) -> None:
    """Keys and ids both name a task, each once; a script gets a line for each."""
    assert submit("k1").exit_code == 0
    vendor.answers = [task()]
    done = run("wait", "k1", "t1", "k1", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert sorted(line["given"] for line in lines) == ["k1", "t1"]
    assert {(line["id"], line["status"]) for line in lines} == {("t1", "completed")}


def test_a_bad_end_stops_no_other(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 where one ended badly or is unknown; the others are printed."""
    answers = {
        "t1": task(status="failed", outputs=[], error="no image", code=1402),
        "t2": (404, {}),
        "t3": task(id="t3"),
    }

    async def answer(request: httpx.Request) -> httpx.Response:
        status, body = answers[request.url.path.split("/")[-2]]
        return httpx.Response(status, json=body)

    monkeypatch.setattr(vendor, "answer", answer)
    done = run("wait", "t1", "t2", "t3")
    assert done.exit_code == 1
    assert "t1 failed\nno image (code 1402)\n" in done.stdout
    assert "t3 completed\n" in done.stdout
    assert done.stderr.startswith("Error: t2: the API knows no such task")


def test_not_in_time(vendor: Vendor) -> None:
    """A task that has not ended by then is no success."""
    vendor.answers = [task(status="processing", outputs=[])]
    done = run("wait", "t1", "--timeout", "50ms", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "has not ended yet" in done.stderr


def test_usage(vendor: Vendor) -> None:
    """F16: what cannot be a time is refused with exit code 2."""
    done = run("wait", "t1", "--timeout", "0")
    assert done.exit_code == 2
    assert vendor.asked == []
