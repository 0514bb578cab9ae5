"""Lost submissions and the API's history."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submitter.ledger.base import Entry, State
from submitter.prediction import JSON, Prediction
from submitter.reconcile.history_match import HistoryMatches, MatchQuality, match, match_quality

NOW = 1_772_356_368.0
MODEL = "vendor/model"
SKEW = 120.0
TEXT = {"prompt": "waves"}
URL, OTHER_URL = "https://a.example/1.png", "https://cdn.example/x/1.png"


def lost(key: str, input: dict[str, JSON] | None = None, *, sent_at: float = NOW) -> Entry:
    return Entry(
        key=key,
        model=MODEL,
        input=TEXT if input is None else input,
        digest=str(input),
        until=sent_at + 65,
        state=State.UNKNOWN,
        tries=1,
        sent_at=sent_at,
    )


def task(
    id: str, input: dict[str, JSON] | None = None, *, after: float | None = 1.0, **more: Any
) -> Prediction:
    created = None if after is None else datetime.fromtimestamp(NOW + after, UTC)
    shown = dict(TEXT) if input is None else input
    return Prediction(id, "processing", input=shown, created_at=created, **{"model": MODEL, **more})


def bare(id: str) -> Prediction:
    """As some answers show it: without its input."""
    return Prediction(id, "processing", created_at=datetime.fromtimestamp(NOW + 1, UTC))


def ids(looked: HistoryMatches) -> dict[str, str]:
    return {key: prediction.id for key, prediction in looked.found.items()}


def matched(
    doubtful: list[Entry], tasks: list[Prediction], *rivals: Entry
) -> tuple[dict[str, str], set[str]]:
    looked = match(doubtful, tasks, rivals=rivals, skew=SKEW)
    return ids(looked), set(looked.unclear)


def test_found() -> None:
    """F32: the one task with the same input is it."""
    tasks = [task("no", {"prompt": "hills"}), task("yes")]
    assert matched([lost("a")], tasks) == ({"a": "yes"}, set())


def test_not_found() -> None:
    """F32: strangers' tasks of the same model, with other inputs, are not it."""
    tasks = [task("t1", {"prompt": "hills"}), task("t2", {"prompt": "waves, again"})]
    assert matched([lost("a")], tasks) == ({}, set())
    assert matched([lost("a")], []) == ({}, set())
    assert matched([], tasks) == ({}, set())


@pytest.mark.parametrize("after", [-SKEW - 1, 65 + SKEW + 1])
def test_of_another_time(after: float) -> None:
    """What was created before the request, or after its end, is not it."""
    assert matched([lost("a")], [task("t", after=after)]) == ({}, set())


@pytest.mark.parametrize("after", [-SKEW + 1, 0.0, 65 + SKEW - 1, None])
def test_clocks_may_differ(after: float | None) -> None:
    """The API's clock may be early or late; a task without a time counts by its input."""
    assert matched([lost("a")], [task("t", after=after)]) == ({"a": "t"}, set())


def test_of_another_model() -> None:
    """A history that does not filter shows other models' tasks; they are not it."""
    assert matched([lost("a")], [task("t", model="vendor/other")]) == ({}, set())
    assert matched([lost("a")], [task("t", model=None)]) == ({"a": "t"}, set())


@pytest.mark.parametrize(
    ("sent", "shown", "expected"),
    [
        ({}, {}, MatchQuality.SAME),
        ({"a": 5}, {"a": 5.0, "default": True}, MatchQuality.SAME),
        ({"a": 5}, {"a": "5"}, MatchQuality.SAME),
        ({"a": 0.7}, {"a": 0.699999988079071}, MatchQuality.SAME),
        ({"a": " two  words\n"}, {"a": "two words"}, MatchQuality.SAME),
        ({"a": [1, {"b": "c"}]}, {"a": [1.0, {"b": "c", "d": 1}]}, MatchQuality.SAME),
        ({"a": []}, {"a": []}, MatchQuality.SAME),
        ({"a": None}, {"a": None}, MatchQuality.SAME),
        ({"a": True}, {"a": True}, MatchQuality.SAME),
        ({"a": 1}, None, MatchQuality.PERHAPS),
        ({"a": ""}, {}, MatchQuality.PERHAPS),
        ({"a": "x"}, {"a": None}, MatchQuality.PERHAPS),
        ({"a": URL}, {"a": OTHER_URL}, MatchQuality.PERHAPS),
        ({"a": URL, "b": 1}, {"a": OTHER_URL, "b": 1}, MatchQuality.PERHAPS),
        ({"a": [URL]}, {"a": [OTHER_URL]}, MatchQuality.PERHAPS),
        ({"a": [{"path": URL}]}, {"a": [{"path": OTHER_URL}]}, MatchQuality.PERHAPS),
        ({"a": URL, "b": 1}, {"a": OTHER_URL, "b": 2}, MatchQuality.OTHER),
        ({"a": "x"}, {"a": "y"}, MatchQuality.OTHER),
        ({"a": 5}, {"a": 10}, MatchQuality.OTHER),
        ({"a": "10**400"}, {"a": 5}, MatchQuality.OTHER),
        ({"a": 10**400}, {"a": 5}, MatchQuality.OTHER),
        ({"a": [1]}, {"a": [1, 2]}, MatchQuality.OTHER),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, MatchQuality.OTHER),
        ({"a": {"b": 1}}, {"a": [1]}, MatchQuality.OTHER),
    ],
)
def test_likeness(
    sent: dict[str, JSON], shown: dict[str, JSON] | None, expected: MatchQuality
) -> None:
    """Defaults, numbers, spaces and addresses that a server tidies up do not make another task."""
    assert match_quality(sent, shown) is expected


def test_identical_inputs() -> None:
    """Of several alike, each gets a task of its own, the nearest in time."""
    doubtful = [lost(f"k{number}", sent_at=NOW + number * 10) for number in range(4)]
    tasks = [task(f"t{number}", after=number * 10 + 1) for number in reversed(range(4))]
    expected = {f"k{number}": f"t{number}" for number in range(4)}
    assert matched(doubtful, tasks) == (expected, set())


def test_identical_inputs_of_which_some_were_created() -> None:
    """As many are found as there are tasks; the others were not created."""
    doubtful = [lost(f"k{number}") for number in range(5)]
    found, unclear = matched(doubtful, [task("t1"), task("t2")])
    assert sorted(found.values()) == ["t1", "t2"]
    assert not unclear


def test_a_shorter_input_leaves_the_others_task() -> None:
    """An input that leaves out a field fits a task that sets it; that one is not taken."""
    short, long = lost("short"), lost("long", {"prompt": "waves", "duration": 10})
    five = task("t5", {"prompt": "waves", "duration": 5}, after=30)
    ten = task("t10", {"prompt": "waves", "duration": 10}, after=0)
    assert matched([short, long], [ten, five]) == ({"short": "t5", "long": "t10"}, set())
    assert matched([short, long], [ten]) == ({"long": "t10"}, set())


def test_nobody_is_left_out_for_the_sake_of_a_nearer_one() -> None:
    """Where every submission can have a task, every one has."""
    early = lost("early", sent_at=NOW)
    late = lost("late", sent_at=NOW + 250)
    middle = task("middle", after=140)  # near to both, and the only one that is late's
    first = task("first", after=-100)
    assert matched([early, late], [middle, first]) == ({"early": "first", "late": "middle"}, set())


def test_a_rival_on_its_way() -> None:
    """The one task there is may belong to an equal request whose answer is still to come."""
    assert matched([lost("a")], [task("t")], lost("rival")) == ({}, {"a"})
    found, unclear = matched([lost("a")], [task("t1"), task("t2")], lost("rival"))
    assert len(found) == 1
    assert not unclear


def test_a_rival_with_another_input_is_none() -> None:
    """What is on its way with another input has nothing to do with it."""
    rival = lost("rival", {"prompt": "hills"})
    assert matched([lost("a")], [task("t")], rival) == ({"a": "t"}, set())


def test_no_input_in_the_history() -> None:
    """One task without an input, and one submission without a task: they belong together."""
    assert matched([lost("a")], [bare("t")]) == ({"a": "t"}, set())


def test_no_input_and_several_tasks() -> None:
    """Which of two it is cannot be told."""
    assert matched([lost("a")], [bare("t1"), bare("t2")]) == ({}, {"a"})


def test_no_input_and_several_submissions() -> None:
    """Whose task it is cannot be told; it may also be that of a rival."""
    b = lost("b", {"prompt": "hills"})
    assert matched([lost("a"), b], [bare("t")]) == ({}, {"a", "b"})
    assert matched([lost("a")], [bare("t")], b) == ({}, {"a"})


def test_what_is_told_by_others_inputs() -> None:
    """Once one task is found by its input, the other is the other one's."""
    b = lost("b", {"prompt": "hills"})
    tasks = [bare("t1"), task("t2", {"prompt": "hills"})]
    assert matched([lost("a"), b], tasks) == ({"a": "t1", "b": "t2"}, set())


def test_rewritten_addresses() -> None:
    """A history that shows other addresses of files is believed where there is one such task."""
    a = lost("a", {"image": URL, "prompt": "waves"})
    moved = task("t", {"image": OTHER_URL, "prompt": "waves"})
    other = task("no", {"image": OTHER_URL, "prompt": "hills"})
    assert matched([a], [moved, other]) == ({"a": "t"}, set())


def test_a_task_that_shows_anothers_input_is_not_taken() -> None:
    """A second task with exactly another submission's file is a stranger's, or its second."""
    a, b = (lost(key, {"image": f"https://a.example/{key}", "prompt": "x"}) for key in "ab")
    tasks = [task(id, {"image": "https://a.example/b", "prompt": "x"}) for id in ("t1", "t2")]
    found, unclear = matched([a, b], tasks)
    assert list(found) == ["b"]
    assert not unclear


@settings(deadline=None)
@given(st.data())
def test_nobody_gets_what_is_not_its_own(data: st.DataObject) -> None:
    """Each task goes to one submission at most, whose input it shows; all that can be are found."""
    prompts = st.sampled_from(["a", "b", "c"])
    inputs: list[dict[str, JSON]] = [
        {"p": prompt} for prompt in data.draw(st.lists(prompts, max_size=6))
    ]
    shown = data.draw(st.lists(prompts, max_size=6))
    doubtful = [lost(f"k{number}", input) for number, input in enumerate(inputs)]
    tasks = [
        task(f"t{number}", {"p": prompt}, after=data.draw(st.integers(-100, 100)))
        for number, prompt in enumerate(shown)
    ]
    found, unclear = matched(doubtful, tasks)
    assert len(set(found.values())) == len(found)
    by_id = {each.id: each for each in tasks}
    assert all(by_id[id].input == entry.input for entry in doubtful if (id := found.get(entry.key)))
    for prompt in "abc":
        wanted = sum(input["p"] == prompt for input in inputs)
        got = sum(by_id[id].input == {"p": prompt} for id in found.values())
        assert got == min(wanted, shown.count(prompt))
    assert not unclear


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6))
def test_as_many_as_can_be(times: list[list[int]]) -> None:
    """Against every possible way: no more submissions could have had a task."""
    doubtful = [
        lost(f"k{number}", {str(time): 1 for time in set(fits)})
        for number, fits in enumerate(times)
    ]
    tasks = [
        task(f"t{number}", {str(time): 1 for time in range(6) if time != number})
        for number in range(6)
    ]
    possible = {
        entry.key: [
            each.id for each in tasks if match_quality(entry.input, each.input) is MatchQuality.SAME
        ]
        for entry in doubtful
    }
    best = 0
    for chosen in itertools.product(*[[None, *fits] for fits in possible.values()]):
        held = [id for id in chosen if id is not None]
        if len(set(held)) == len(held):
            best = max(best, len(held))
    same = [key for key, id in matched(doubtful, tasks)[0].items() if id in possible[key]]
    assert len(same) == best


def test_very_many() -> None:
    """However many there are, the stack holds."""
    doubtful = [lost(f"k{number}") for number in range(400)]
    tasks = [task(f"t{number}") for number in range(300)]
    found, _ = matched(doubtful, tasks)
    assert len(found) == 300
