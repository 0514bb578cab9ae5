"""The command `batch` as a process of its own, ended in every way."""

from __future__ import annotations

import json
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from submitter.simulator import Faults, Simulator
from tests.support.batches import ended, read, start, write
from tests.support.scripted_vendor import KLING, install, run
from tests.support.waiting import until

IMAGE = "https://example.com/first.png"

# Their reports would be of no use, and who is killed writes none.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


def shots(count: int, *more: str) -> list[dict[str, str]]:
    return [{"prompt": prompt, "image": IMAGE} for prompt in (*map(str, range(count)), *more)]


def submitted(sim: Simulator, count: int) -> bool:
    return len(sim.tasks) >= count


async def test_killed_twice(tmp_path: Path) -> None:
    """F32: 200 rows, killed at two moments and run to the end: all results, each billed once."""
    faults = Faults.parse("lost-answer=0.03,reset=0.02,lost-request=0.02", seed=1)
    write(tmp_path, shots(200))
    async with Simulator(speed=200, faults=faults) as sim:
        for moment in (40, 120):
            process = await start(sim, tmp_path, **UNMEASURED)
            await until(partial(submitted, sim, moment))
            process.kill()
            assert (await ended(process))[0] == -signal.SIGKILL
            assert not (tmp_path / "results.jsonl").exists()
        code, out, _ = await ended(await start(sim, tmp_path))
        assert (code, out.splitlines()[0]) == (0, "200 rows: 200 completed; 50.00 USD")
        assert len(sim.tasks) == 200
        results = read(tmp_path / "results.jsonl")
        assert [row["input"]["prompt"] for row in results] == [str(n) for n in range(200)]
        assert {row["task_id"] for row in results} == {task.id for task in sim.tasks}
        prompts = {task.id: task.input["prompt"] for task in sim.tasks}
        assert all(prompts[row["task_id"]] == row["input"]["prompt"] for row in results)
        assert list(tmp_path.glob(".results*")) == []


@pytest.mark.parametrize(("number", "exits"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_interrupted(tmp_path: Path, number: int, exits: int) -> None:
    """Ctrl-C and SIGTERM write what is known, and the same command goes on from there."""
    write(tmp_path, shots(12, "quick [moderated]"))
    async with Simulator(speed=1) as sim:
        process = await start(sim, tmp_path, WAVEHOOK_IN_FLIGHT="5")
        await until(lambda: len(sim.tasks) == 5)
        process.send_signal(number)
        code, out, err = await ended(process)
        assert (code, out) == (exits, "")
        assert "The same command continues from here" in err
        rows = read(tmp_path / "results.jsonl")
        known = Counter(row["status"] for row in rows)
        assert known["waiting"] == 8
        assert known["accepted"] + known["intended"] == 5
        await sim.forward(100)
        process = await start(sim, tmp_path, "--json", WAVEHOOK_IN_FLIGHT="20")
        await until(lambda: len(sim.tasks) == 13)
        await sim.forward(100)
        code, out, _ = await ended(process)
    said = json.loads(out)
    seconds = said.pop("seconds")
    assert (code, seconds > 0) == (1, True)
    assert said == {
        "rows": 13,
        "completed": 12,
        "failed": 1,
        "rejected": 0,
        "invalid": 0,
        "unfinished": 0,
        "cost": 3.25,
        "results": "results.jsonl",
    }
    assert len(sim.tasks) == 13


async def test_what_a_person_is_told(tmp_path: Path) -> None:
    """Bad rows at once, the end in a few words, and exit code 1 where not all is well."""
    write(tmp_path, [*shots(1, "b [fail]"), {"prompt": "\x1b[31m"}])
    async with Simulator(speed=1000) as sim:
        code, out, err = await ended(await start(sim, tmp_path))
    assert code == 1
    assert out.splitlines() == [
        "3 rows: 1 completed, 1 failed, 1 invalid; 0.50 USD",
        "The results are in results.jsonl",
        "--retry-failed submits the failed rows again, and pays again.",
    ]
    assert "1 of 3 rows cannot be sent:\n  line 3: image: is required\n" in err
    assert "submitted 2, running 0, done 1, failed 1, faulty 1, 0.50 USD" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-cost", "0.20"), "the cap is 0.2 USD; nothing was sent"),
        (("--context", "{"), "line 1"),
        (("--context", "1"), "WAVEHOOK_PUBLIC_URL"),
        (("--model", "../x"), "model: "),
        (("--out", "inputs.jsonl"), "is not a results file of this batch"),
    ],
)
def test_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Exit code 2, and nothing is sent."""
    vendor = install(monkeypatch, tmp_path)
    vendor.answers = [(200, {"code": 200, "data": {"price": 0.25}})]
    write(tmp_path, shots(1))
    done = run("batch", "inputs.jsonl", "--model", KLING, "--out", "results.jsonl", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert [path for path, _, _ in vendor.asked if path != "/api/v3/model/price"] == []


async def test_a_mistyped_model(tmp_path: Path) -> None:
    """A model that the API does not know is told once, with the one that may be meant."""
    write(tmp_path, shots(60))
    async with Simulator() as sim:
        words = ("--model", f"{KLING}x")
        code, out, err = await ended(await start(sim, tmp_path, *words, WAVEHOOK_IN_FLIGHT="5"))
        # What was on its way already, and none of the rest.
        assert sim.calls["submit"] < 60
    assert (code, out.splitlines()[0]) == (1, "60 rows: 60 not ended; 0.00 USD")
    assert "Error: nothing more was submitted: the API knows no such task or model" in err
    assert f"did you mean {KLING}?" in err


def test_rows_that_the_api_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A person reads why, not only how many."""
    vendor = install(monkeypatch, tmp_path)
    price = (200, {"code": 200, "data": {"price": 0.25}})
    vendor.answers = [price, (400, {"code": 400, "message": "no such style"})]
    write(tmp_path, shots(1))
    done = run("batch", "inputs.jsonl", "--model", KLING, "--out", "results.jsonl")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "1 rows: 1 rejected; 0.00 USD")
    assert "1 of 1 rows were refused:\n  line 1: " in done.stderr
    assert "no such style" in done.stderr


async def test_the_key_is_refused(tmp_path: Path) -> None:
    """F15: a refused key ends it before anything is sent, with exit code 1."""
    write(tmp_path, shots(3))
    async with Simulator(api_key="other") as sim:
        code, out, err = await ended(await start(sim, tmp_path))
    assert (code, out) == (1, "")
    assert "WAVESPEED_API_KEY" in err


async def test_the_key_is_refused_meanwhile(tmp_path: Path) -> None:
    """Nothing more is submitted, and what nobody would tell of is not waited for."""
    write(tmp_path, shots(30))
    async with Simulator(speed=1, api_key="k") as sim:
        process = await start(sim, tmp_path, WAVEHOOK_IN_FLIGHT="10")
        await until(partial(submitted, sim, 10))
        assert sim._state is not None
        sim._state.api_key = "other"
        code, out, err = await ended(process)
        assert len(sim.tasks) == 10
    assert (code, out.splitlines()[0]) == (1, "30 rows: 30 not ended; 2.50 USD")
    assert "Error: nothing more was submitted: the API key was refused" in err
    statuses = Counter(row["status"] for row in read(tmp_path / "results.jsonl"))
    assert statuses == {"accepted": 10, "waiting": 20}


async def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    """What was paid for is not lost with the file; the same command writes it."""
    write(tmp_path, shots(1))
    folder = tmp_path / "there"
    folder.mkdir()
    async with Simulator(speed=60) as sim:
        process = await start(sim, tmp_path, "--out", "there/results.jsonl")
        await until(lambda: len(sim.tasks) == 1)
        folder.rename(tmp_path / "gone")
        code, out, err = await ended(process)
        assert (code, out) == (1, "")
        assert "cannot be written" in err
        folder.mkdir()
        code, _, _ = await ended(await start(sim, tmp_path, "--out", "there/results.jsonl"))
        assert (code, len(sim.tasks)) == (0, 1)
    assert read(folder / "results.jsonl")[0]["status"] == "completed"
