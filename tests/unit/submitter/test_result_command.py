"""The command `result`, against answers of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stamina

from tests.support.scripted_vendor import Vendor, install, run, task


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vendor:
    return install(monkeypatch, tmp_path)


def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: a missing key is named, with exit code 2."""
    done = run("result", "t1")
    assert done.exit_code == 2
    assert "WAVESPEED_API_KEY" in done.stderr


def test_result_for_a_person(vendor: Vendor) -> None:
    """A person gets the status and the outputs, without what would steer the terminal."""
    vendor.answers = [task(outputs=["https://cdn/1.mp4", "https://cdn/\x1b[31m.mp4"])]
    done = run("result", "t1")
    assert done.exit_code == 0
    assert done.stdout == "t1 completed\nhttps://cdn/1.mp4\nhttps://cdn/\ufffd[31m.mp4\n"


def test_result_of_a_failed_task(vendor: Vendor) -> None:
    """A task that ended badly is told with its reason, and exit code 1."""
    vendor.answers = [task(status="failed", outputs=[], error="no image", code=1402)]
    done = run("result", "t1")
    assert (done.exit_code, done.stdout) == (1, "t1 failed\nno image (code 1402)\n")
    vendor.answers = [task(status="failed", outputs=[], error="no image")]
    assert run("result", "t1").stdout == "t1 failed\nno image\n"


def test_result_as_json(vendor: Vendor) -> None:
    """A script gets every field of the prediction in one line."""
    vendor.answers = [task(created_at="2026-03-01T09:12:48.2Z", has_nsfw_contents=None)]
    done = run("result", "t1", "--json")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {
        "id": "t1",
        "status": "completed",
        "model": None,
        "outputs": ["https://cdn/1.mp4"],
        "error": None,
        "code": None,
        "has_nsfw_contents": [],
        "created_at": "2026-03-01T09:12:48.200000+00:00",
        "inference_ms": None,
    }


def test_a_task_under_way_is_no_failure(vendor: Vendor) -> None:
    """Exit code 0 says that the question was answered."""
    vendor.answers = [task(status="processing", outputs=[])]
    assert (run("result", "t1").exit_code, run("result", "t1").stdout) == (0, "t1 processing\n")


def test_retries_are_told_beside_the_output(vendor: Vendor) -> None:
    """A retry is told on standard error; standard output holds the result alone."""
    vendor.answers = [(503, {}), task()]
    done = run("result", "t1", "--json")
    assert json.loads(done.stdout)["status"] == "completed"
    assert "HTTP 503" in done.stderr
    assert "retrying" in done.stderr
    assert stamina.is_testing()
