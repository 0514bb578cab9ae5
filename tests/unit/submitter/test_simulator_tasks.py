"""The life of simulated tasks, with the time as an argument."""

from __future__ import annotations

import pytest

from submitter.prediction import Status
from submitter.simulator.clock import Timeline
from submitter.simulator.tasks import API_RETENTION_S, ENDINGS, Task, TaskStore

MODEL = "kwaivgi/kling-v2.1-i2v-standard"


def submit(store: TaskStore, prompt: str = "a lighthouse", *, ends_now: bool = False) -> Task:
    input = {"prompt": prompt}
    return store.submit(MODEL, input, webhook=None, cost=0.25, now=1000.0, ends_now=ends_now)


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_a_task_goes_from_created_over_processing_to_completed(speed: float) -> None:
    """Ten times faster, the same task takes a tenth of the time."""
    task = submit(TaskStore(Timeline(speed)))
    assert task.ended_at == 1000.0 + 40.0 / speed
    assert task.status(1000.0) == Status.CREATED
    assert task.status(1000.0 + 3 / speed) == Status.PROCESSING
    assert task.status(1000.0 + 39.9 / speed) == Status.PROCESSING
    assert task.status(1000.0 + 40.0 / speed) == Status.COMPLETED


def test_tasks_do_not_end_in_the_order_of_their_submission() -> None:
    """Run times differ from task to task."""
    store = TaskStore()
    ends = [submit(store).ended_at for _ in range(10)]
    assert ends != sorted(ends)


@pytest.mark.parametrize(("word", "ending"), ENDINGS.items())
def test_a_prompt_can_ask_for_an_end(word: str, ending: object) -> None:
    """`[fail]` and its siblings end the task as the vendor would, after a while."""
    task = submit(TaskStore(), f"a lighthouse {word}")
    assert task.ending is ending
    assert task.status(task.ended_at) == task.ending.status
    assert task.status(task.ended_at - 0.1) == Status.PROCESSING


def test_a_task_can_end_the_moment_it_is_created() -> None:
    """F28: what a webhook that is faster than the submit's answer needs."""
    task = submit(TaskStore(), ends_now=True)
    assert task.status(1000.0) == Status.COMPLETED


def test_a_task_is_known_for_7_days() -> None:
    """Simulated days, from its end; results and history forget a task, the bill does not."""
    store = TaskStore(Timeline(2.0))
    task = submit(store)
    assert store.find(task.id, task.ended_at + API_RETENTION_S / 2 - 1) is task
    assert store.find(task.id, task.ended_at + API_RETENTION_S / 2) is None
    assert list(store.history(task.ended_at + API_RETENTION_S / 2)) == []
    assert list(store.submitted) == [task.id]
    assert store.spent == 0.25


def test_the_history_is_newest_first() -> None:
    """The last task submitted leads."""
    store = TaskStore()
    first, second = submit(store), submit(store)
    assert list(store.history(1000.0)) == [second, first]
    assert store.find("nobody", 1000.0) is None


def test_a_task_does_not_show_its_prompt() -> None:
    """F16: neither prompt nor webhook URL is in a `repr`."""
    shown = repr(
        TaskStore().submit(MODEL, {"prompt": "hush"}, webhook="https://x/t0k", cost=0, now=0)
    )
    assert "hush" not in shown
    assert "t0k" not in shown
