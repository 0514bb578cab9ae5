"""Batches against the simulator: every row is paid for once, and comes to a result."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from submitter.batch.batch import MAX_CONCURRENT_SUBMITS
from submitter.batch.plan import BatchRequest, plan
from submitter.batch.rows import RowState
from submitter.client import WaveSpeed
from submitter.errors import (
    ApiError,
    BadInput,
    BadSettings,
    InsufficientBalance,
    LedgerUnavailable,
    NotFound,
    OverBudget,
    RateLimited,
    Unavailable,
)
from submitter.prediction import Prediction
from submitter.simulator import Faults, Simulator
from submitter.submit.context_token import Seal
from tests.support.batches import KLING, PATIENCE, Done, Scripted, run, settings, write
from tests.support.pictures import png

IMAGE = "https://example.com/first.png"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(speed=1000) as made:
        yield made


def shot(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "image": IMAGE, **more}


async def batch(sim: Simulator, inputs: Path, **more: Any) -> Done:
    given = settings(sim, inputs.parent)
    return await run(WaveSpeed(settings=given), given, inputs, **more)


async def test_results_in_the_order_of_the_inputs(sim: Simulator, tmp_path: Path) -> None:
    """One bad row never stops the others; each comes to a result with all that is known of it."""
    rows = [
        shot("a", duration=10),
        "{",
        shot("b [moderated]"),
        shot("c", duration=7, seed=1),
        shot("d"),
    ]
    done = await batch(sim, write(tmp_path, rows))
    assert done.statuses == ["completed", "invalid", "failed", "invalid", "completed"]
    assert [row["row"] for row in done.results] == [1, 2, 3, 4, 5]
    first, unread, failed, bad, _ = done.results
    assert list(first)[:6] == ["row", "key", "task_id", "model", "input", "status"]
    assert list(first)[6:10] == ["outputs", "error", "code", "cost"]
    assert list(first)[10:] == ["submitted_at", "finished_at", "seconds"]
    assert list(unread) == list(first)
    assert first["input"] == rows[0]
    assert first["model"] == KLING
    assert first["outputs"] == [f"{sim.url}/outputs/{first['task_id']}.mp4"]
    assert (first["cost"], failed["cost"], bad["cost"]) == (0.5, 0.25, None)
    assert first["submitted_at"] < first["finished_at"]
    assert first["seconds"] > 0
    assert (failed["error"], failed["code"]) == ("Content flagged by moderation", 1200)
    assert unread["input"] is None
    assert "line 1" not in unread["error"]
    assert "duration: must be one of 5, 10" in bad["error"]
    assert "seed: is not a field" in bad["error"]
    assert done.said[0] == "2 of 5 rows cannot be sent:"
    assert done.said[1].startswith("  line 2: is not JSON")
    assert done.batch.cost == 1.0
    assert len(sim.tasks) == 3


async def test_the_same_again_pays_nothing(sim: Simulator, tmp_path: Path) -> None:
    """What the ledger knows is taken from it, with or without the results file."""
    inputs = write(tmp_path, [shot("a"), shot("b")])
    first = await batch(sim, inputs)
    assert (await batch(sim, inputs)).results == first.results
    (tmp_path / "results.jsonl").unlink()
    assert (await batch(sim, inputs)).results == first.results
    assert (len(sim.tasks), sim.calls["price"]) == (2, 1)


async def test_what_is_paid_for_once(sim: Simulator, tmp_path: Path) -> None:
    """Equal rows are rows of their own; a row keeps its task where others come and go."""
    first = await batch(sim, write(tmp_path, [shot("a"), shot("a"), shot("b")]))
    assert len(sim.tasks) == 3
    again = await batch(sim, write(tmp_path, [shot("c"), shot("b"), shot("a"), shot("a")]))
    assert len(sim.tasks) == 4
    ids = [row["task_id"] for row in first.results]
    assert [row["task_id"] for row in again.results][1:] == [ids[2], ids[0], ids[1]]


async def test_another_name_pays_anew(sim: Simulator, tmp_path: Path) -> None:
    """By default the place of the results is the name; a name of one's own keeps what is paid."""
    inputs = write(tmp_path, [shot("a")])
    await batch(sim, inputs, name="one")
    await batch(sim, inputs, name="one", out=tmp_path / "elsewhere.jsonl")
    assert len(sim.tasks) == 1
    await batch(sim, inputs, name="two", out=tmp_path / "other.jsonl")
    await batch(sim, inputs, out=tmp_path / "third.jsonl")
    assert len(sim.tasks) == 3


async def test_another_ledger(sim: Simulator, tmp_path: Path) -> None:
    """A results file whose tasks the ledger does not know is no reason to pay for them again."""
    inputs = write(tmp_path, [shot("a")])
    await batch(sim, inputs)
    other = settings(sim, tmp_path, database=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(BadInput, match="WAVEHOOK_DATABASE"):
        await run(WaveSpeed(settings=other), other, inputs)
    assert len(sim.tasks) == 1


async def test_two_at_once(sim: Simulator, tmp_path: Path) -> None:
    """Two batches of one name come to the same results, and pay once."""
    inputs = write(tmp_path, [shot(f"{n}") for n in range(20)])
    one, two = await asyncio.gather(batch(sim, inputs), batch(sim, inputs))
    assert one.results == two.results
    assert len(sim.tasks) == 20


async def test_prices_are_asked_for_once(sim: Simulator, tmp_path: Path) -> None:
    """Neither text nor files make a price of their own."""
    rows = [shot(f"{n}", duration=5 if n % 2 else 10, negative_prompt="x" * n) for n in range(10)]
    done = await batch(sim, write(tmp_path, rows))
    assert sim.calls["price"] == 2
    assert [row["cost"] for row in done.results] == [0.5, 0.25] * 5


async def test_a_cap_for_the_whole_batch(sim: Simulator, tmp_path: Path) -> None:
    """The cap is held against the rows that are still to be paid for; nothing is sent above it."""
    inputs = write(tmp_path, [shot("a"), shot("b")])
    with pytest.raises(OverBudget):
        await batch(sim, inputs, max_cost=0.49)
    assert sim.tasks == []
    assert not (tmp_path / "results.jsonl").exists()
    await batch(sim, inputs, max_cost=0.5)
    await batch(sim, inputs, max_cost=0.0)
    assert len(sim.tasks) == 2


async def test_a_row_that_the_api_refuses(sim: Simulator, tmp_path: Path) -> None:
    """What is refused is a result; the same again tries it again, for nothing was paid."""
    inputs = write(tmp_path, [shot("a")])
    given = settings(sim, tmp_path)
    refused = ApiError(status=400, code=1400, message="no such style")
    done = await run(Scripted(given, refused), given, inputs)
    assert done.statuses == ["rejected"]
    assert "no such style" in done.results[0]["error"]
    assert (done.results[0]["code"], done.results[0]["cost"]) == (1400, None)
    assert (await batch(sim, inputs)).statuses == ["completed"]


async def test_a_model_that_the_api_does_not_have(sim: Simulator, tmp_path: Path) -> None:
    """It would be refused for every row: nothing more is submitted."""
    inputs = write(tmp_path, [{"text": "a"}, {"text": "b"}])
    done = await batch(sim, inputs, model="acme/none")
    assert done.statuses == ["waiting", "waiting"]
    assert isinstance(done.batch.stopped, NotFound)


async def test_bad_rows_are_told_in_few_lines(sim: Simulator, tmp_path: Path) -> None:
    """Of many bad rows a person is told the first ones; the results have them all."""
    done = await batch(sim, write(tmp_path, ["x"] * 25))
    assert len(done.said) == 22
    assert done.said[-1] == "  and 5 more"
    assert done.statuses == ["invalid"] * 25


async def test_a_cap_without_a_price(sim: Simulator, tmp_path: Path) -> None:
    """A cap that cannot be held lets nothing through."""
    inputs = write(tmp_path, [{"text": "a"}])
    with pytest.raises(BadInput, match="has no price for 1 of the rows"):
        await batch(sim, inputs, model="acme/none", max_cost=1.0)
    sim.set_faults(Faults.parse("error-502"))
    with pytest.raises(Unavailable):
        await batch(sim, write(tmp_path, [shot("a")]), max_cost=1.0)
    assert sim.tasks == []


@pytest.mark.parametrize("model", ["../x", "kwaivgi/kling v2"], ids=["a path", "a space"])
async def test_a_model_that_cannot_be(sim: Simulator, tmp_path: Path, model: str) -> None:
    """F16: no row is read for a model that no API can have."""
    with pytest.raises(BadInput, match="model: "):
        await batch(sim, write(tmp_path, [{}]), model=model)


async def test_lost_answers(sim: Simulator, tmp_path: Path) -> None:
    """F32: a lost answer is settled; sent again is only what was never created."""
    sim.set_faults(Faults.parse("lost-answer=0.2,lost-request=0.2,reset=0.1"))
    inputs = write(tmp_path, [shot(f"{n}") for n in range(30)])
    done = await batch(sim, inputs)
    assert set(done.statuses) == {"completed"}
    assert len(sim.tasks) == 30
    assert sorted(row["task_id"] for row in done.results) == sorted(t.id for t in sim.tasks)


async def test_the_api_is_away(sim: Simulator, tmp_path: Path) -> None:
    """No row is given up because the API is away, and none is sent twice."""
    away: list[Any] = [Unavailable("ConnectError")] * 3 + [RateLimited(retry_after=0.01)] * 12
    given = settings(sim, tmp_path)
    wave = Scripted(given, *away)
    done = await run(wave, given, write(tmp_path, [shot("a"), shot("b")]))
    assert done.statuses == ["completed", "completed"]
    assert len(sim.tasks) == 2
    assert wave.posts == len(away) + 2
    assert done.batch.backoff.problem is None


async def test_nothing_ends(tmp_path: Path) -> None:
    """Where nothing ends for long, a person learns that the API is away, until it is back."""
    async with Simulator(speed=1) as sim:
        given = settings(sim, tmp_path, overdue=0.1)
        problems: list[str | None] = []

        class Silent(Scripted):
            async def balance(self) -> float:
                problems.append(made.backoff.problem)
                if problems[-1] is not None:
                    await sim.forward(100)
                raise Unavailable("HTTP 502")

        inputs = write(tmp_path, [shot("a")])
        async with asyncio.timeout(PATIENCE), Silent(given) as wave:
            wanted = BatchRequest(inputs, KLING, tmp_path / "results.jsonl")
            made = await plan(wave, given, wanted, print)
            await made.run()
    assert problems[0] is None
    assert "the API is not available (HTTP 502)" in problems
    assert made.backoff.problem is None
    assert made.rows[0].state is RowState.COMPLETED


async def test_the_ledger_is_away(sim: Simulator, tmp_path: Path) -> None:
    """A ledger that cannot be read for a while costs no row."""
    given = settings(sim, tmp_path)
    inputs = write(tmp_path, [shot("a")])

    class Forgetful(Scripted):
        failures = 2

        async def wait(self, id: str, *, timeout: float | None = None) -> Prediction:
            self.failures -= 1
            if self.failures >= 0:
                raise LedgerUnavailable("disk full")
            return await super().wait(id, timeout=timeout)

    done = await run(Forgetful(given), given, inputs)
    assert done.statuses == ["completed"]
    assert len(sim.tasks) == 1


async def test_no_money_left(sim: Simulator, tmp_path: Path) -> None:
    """What would befall every row stops the batch; what is on its way is waited for."""
    given = settings(sim, tmp_path, in_flight=3)
    inputs = write(tmp_path, [shot(f"{n}") for n in range(20)])

    class Poor(Scripted):
        async def post(self, *words: Any, **more: Any) -> Prediction:
            if self.posts == 5:
                raise InsufficientBalance(status=400)
            return await super().post(*words, **more)

    done = await run(Poor(given), given, inputs)
    assert isinstance(done.batch.stopped, InsufficientBalance)
    assert Counter(done.statuses) == {"completed": 5, "waiting": 15}
    assert len(sim.tasks) == 5
    assert (await batch(sim, inputs)).batch.counts[RowState.COMPLETED] == 20
    assert len(sim.tasks) == 20


async def test_no_money_while_the_api_is_away(sim: Simulator, tmp_path: Path) -> None:
    """Who waits for the API to come back learns that nothing more is submitted."""
    given = settings(sim, tmp_path, overdue=3600.0)
    wave = Scripted(given, Unavailable("ConnectError"), InsufficientBalance(status=400))
    done = await run(wave, given, write(tmp_path, [shot("a"), shot("b")]))
    assert done.statuses == ["waiting", "waiting"]
    assert isinstance(done.batch.stopped, InsufficientBalance)


async def test_failed_rows_are_paid_for_again(sim: Simulator, tmp_path: Path) -> None:
    """Only on request, and only what the results file shows; a kill makes no third payment."""
    inputs = write(tmp_path, [shot("a"), shot("b [fail]")])
    out = tmp_path / "results.jsonl"
    first = await batch(sim, inputs, retry=True)
    assert first.said == ["Submitted again, because they failed: 0"]
    assert first.statuses == ["completed", "failed"]
    shown = out.read_text()
    second = await batch(sim, inputs, retry=True)
    assert second.said == ["Submitted again, because they failed: 1"]
    assert second.results[0] == first.results[0]
    assert second.results[1]["key"] == first.results[1]["key"] + ".2"
    assert len(sim.tasks) == 3
    assert (await batch(sim, inputs)).results == second.results
    # As if the second had been killed before it could write.
    out.write_text(shown)
    assert (await batch(sim, inputs, retry=True)).results == second.results
    assert len(sim.tasks) == 3
    third = await batch(sim, inputs, retry=True)
    assert third.results[1]["key"] == first.results[1]["key"] + ".3"
    assert len(sim.tasks) == 4


async def test_a_retry_that_is_refused(sim: Simulator, tmp_path: Path) -> None:
    """A second payment that the API refused may be tried again; the failed task is not lost."""
    inputs = write(tmp_path, [shot("b [fail]")])
    given = settings(sim, tmp_path)
    first = await batch(sim, inputs)
    refusal = InsufficientBalance(status=400)
    done = await run(Scripted(given, refusal), given, inputs, retry=True)
    assert done.statuses == ["waiting"]
    assert (await batch(sim, inputs)).results == first.results


async def test_local_files(sim: Simulator, tmp_path: Path) -> None:
    """A file is uploaded once; other content is another task, and a lost file loses no result."""
    image = tmp_path / "first.png"
    image.write_bytes(png())
    inputs = write(tmp_path, [{"prompt": p, "image": str(image)} for p in "ab"])
    first = await batch(sim, inputs)
    assert first.statuses == ["completed", "completed"]
    assert sim.calls["upload"] == 1
    assert (await batch(sim, inputs)).results == first.results
    image.write_bytes(png(400))
    changed = await batch(sim, inputs)
    assert (len(sim.tasks), sim.calls["upload"]) == (4, 2)
    assert (await batch(sim, inputs)).results == changed.results
    image.unlink()
    assert (await batch(sim, inputs)).results == first.results
    assert len(sim.tasks) == 4


async def test_a_file_that_goes_meanwhile(sim: Simulator, tmp_path: Path) -> None:
    """A file that was there at the check and is gone at the submit makes a bad row."""
    image = tmp_path / "first.png"
    image.write_bytes(png())
    given = settings(sim, tmp_path)

    class Late(Scripted):
        async def submit(self, *words: Any, **more: Any) -> Any:
            image.unlink()
            return await super().submit(*words, **more)

    done = await run(Late(given), given, write(tmp_path, [{"prompt": "a", "image": str(image)}]))
    assert done.statuses == ["invalid"]
    assert "image: " in done.results[0]["error"]


async def test_context_of_a_row(sim: Simulator, tmp_path: Path) -> None:
    """A row may bring its own context; it is sealed into the webhook's URL, and pays nothing."""
    key = Fernet.generate_key().decode()
    given = settings(
        sim, tmp_path, public_url="https://hooks.example.com", seal_keys=(key,), overdue=0.5
    )
    rows = [{"input": shot("a"), "context": {"id": 7}}, shot("b")]
    done = await run(WaveSpeed(settings=given), given, write(tmp_path, rows), context="all")
    assert done.results[0]["input"] == shot("a")
    tokens = [str(task.webhook).rpartition("/")[2] for task in sim.tasks]
    sealed = [Seal([key]).open(token, sim.tasks[0].created_at) for token in tokens]
    found = {one.submission: one.context for one in sealed if one}
    assert [found[row["key"]] for row in done.results] == [{"id": 7}, "all"]
    again = await run(WaveSpeed(settings=given), given, write(tmp_path, [shot("a"), shot("b")]))
    assert again.results == done.results


async def test_a_context_needs_a_receiver(sim: Simulator, tmp_path: Path) -> None:
    """F15: what is wrong for all rows is told once."""
    with pytest.raises(BadSettings, match="WAVEHOOK_PUBLIC_URL"):
        await batch(sim, write(tmp_path, [shot("a")]), context={"id": 7})


async def test_a_row_that_left_the_ledger(sim: Simulator, tmp_path: Path) -> None:
    """What somebody removed from the ledger meanwhile is told, and ends nothing else."""
    given = settings(sim, tmp_path)

    class Strange(Scripted):
        async def wait(self, id: str, *, timeout: float | None = None) -> Prediction:
            return await super().wait("gone", timeout=timeout)

    done = await run(Strange(given), given, write(tmp_path, [shot("a")]))
    assert done.batch.rows[0].state is RowState.REJECTED


async def test_many_rows(sim: Simulator, tmp_path: Path) -> None:
    """However many rows there are, few are seen through at one time."""
    given = settings(sim, tmp_path, in_flight=10)
    count, most = 300, 0

    class Quick(WaveSpeed):
        async def post(self, model: str, input: Any, *_: Any, **__: Any) -> Prediction:
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            answer = Prediction.parse({"id": f"t{input['prompt']}", "status": "completed"})
            assert answer is not None
            return answer

    inputs = write(tmp_path, [shot(f"{n}") for n in range(count)])
    done = await run(Quick(settings=given), given, inputs)
    assert [row["task_id"] for row in done.results] == [f"t{n}" for n in range(count)]
    assert set(done.statuses) == {"completed"}
    assert most < 3 * MAX_CONCURRENT_SUBMITS
