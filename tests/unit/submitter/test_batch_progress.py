"""How a batch is shown while it runs."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest

from submitter.batch.batch import Batch, SharedBackoff
from submitter.batch.rows import Row, RowState
from submitter.cli import progress
from submitter.client import WaveSpeed
from submitter.errors import AuthFailed
from submitter.reconcile.schedule import Schedule
from submitter.settings import SubmitSettings
from tests.support.waiting import until


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    given = SubmitSettings(api_key="k", database=f"sqlite:///{tmp_path / 'ledger.db'}")
    rows = [Row(n, n, "{}", f"k{n}", state=state) for n, state in enumerate(RowState)]
    for row in rows:
        row.cost = 0.25
    schedule = Schedule(1.0)
    wave = WaveSpeed(settings=given)
    return Batch(wave, "acme/m", rows, schemas={}, schedule=schedule, window=1)


def test_in_one_line(batch: Batch) -> None:
    """Submitted, running, done, failed, the cost so far; and what is left, where it is known."""
    whole = "submitted 3, running 1, done 1, failed 1, faulty 2, to send 1, 0.75 USD"
    assert progress.status_line(batch, 10.0) == whole
    batch.ended = 2
    assert progress.status_line(batch, 10.0) == f"{whole}, about 10 s left"
    assert progress.status_line(batch, 1000.0) == f"{whole}, about 17 min left"
    assert progress.status_line(batch, 100_000.0) == f"{whole}, about 28 h left"
    batch.ended = 0
    batch.backoff.problem = "HTTP\x1b503"
    assert progress.status_line(batch, 10.0) == f"{whole}, retrying: HTTP\ufffd503"
    batch.stopped = AuthFailed(status=401)
    assert progress.status_line(batch, 10.0) == f"{whole}, submits stopped"


def test_a_full_minute_is_told(batch: Batch) -> None:
    """A batch that sends nothing because the limits are used up says so."""
    for row in batch.rows:
        if row.state is RowState.RUNNING:
            row.state = RowState.WAITING
    assert progress.status_line(batch, 10.0).endswith(", waiting for the limits")


async def test_lines_now_and_then(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no person looks on, a line comes now and then, and one in the end."""
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.001)
    lines = ""
    async with progress.shown(batch), asyncio.timeout(20):
        while lines.count("submitted 3") < 3:
            await asyncio.sleep(0.002)
            lines += capsys.readouterr().err
    assert capsys.readouterr().err.endswith("0.75 USD\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_a_bar_on_a_terminal(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees a bar with the same words; in the end the words stay."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    async with progress.shown(batch):
        await until(lambda: "4/6" in terminal.getvalue())
    assert "submitted 3, running 1" in terminal.getvalue()
    assert terminal.getvalue().endswith("0.75 USD\n")


async def test_patience() -> None:
    """Of tries that failed together one counts; the first that goes well begins anew."""
    backoff = SharedBackoff(Schedule(0.06))
    stopping, never = asyncio.Event(), asyncio.Event()
    stopping.set()
    first = await backoff.wait(never)
    backoff.failed(first, "HTTP 503")
    backoff.failed(first, "HTTP 503")
    assert backoff.problem == "HTTP 503"
    second = await backoff.wait(never)
    assert second == first + 1
    backoff.failed(second, "HTTP 503")
    assert await backoff.wait(stopping) == second + 1
    backoff.succeeded()
    assert backoff.problem is None
    assert await backoff.wait(never) == first
