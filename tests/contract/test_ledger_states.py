"""Promises 1, 3 and 4: what each word makes of a submission, in whatever order words come."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from submitter.ledger.base import Entry, IntentWritten, Ledger, Result, State
from submitter.prediction import JSON, Prediction
from tests.support.submissions import (
    MODEL,
    NOW,
    UNLIMITED,
    accepted,
    intended,
    intent,
    only,
    prediction,
    result,
)


async def test_an_intent_is_kept_as_it_was_given(ledger: Ledger) -> None:
    """Promise 1: all that is to be sent, and when it is over."""
    given = intent()
    answer = await ledger.intend(given, UNLIMITED, NOW)

    expected = Entry(
        key="k1",
        model=MODEL,
        input=given.input,
        digest="d1",
        until=NOW + 60,
        state=State.INTENDED,
        tries=1,
        sent_at=NOW,
        context=given.context,
        webhook=True,
        cost=0.28,
        ask_at=NOW + 60,
    )
    assert answer == IntentWritten(expected, fresh=True)
    assert await ledger.find(["k1", "other"]) == {"k1": expected}


async def test_a_key_that_is_there_is_left_alone(ledger: Ledger) -> None:
    """Promise 1: the second intent of a key is told of the first, whatever it would send."""
    first = await intended(ledger)

    answer = await ledger.intend(intent(model="other/model", digest="d2"), UNLIMITED, NOW + 9)

    assert answer == IntentWritten(first, fresh=False)
    assert await only(ledger) == first


async def test_of_parallel_intents_one_is_fresh(ledger: Ledger) -> None:
    """Promise 1: and nine find it there."""
    answers = await asyncio.gather(
        *(ledger.intend(intent(digest=f"d{n}"), UNLIMITED, NOW) for n in range(10))
    )

    found = [answer for answer in answers if isinstance(answer, IntentWritten)]
    assert sorted(answer.fresh for answer in found) == [False] * 9 + [True]
    assert {answer.entry.digest for answer in found} == {(await only(ledger)).digest}


async def test_a_rejected_key_is_intended_anew(ledger: Ledger) -> None:
    """REJECTED to INTENDED: with all fields of the new intent, and one try more."""
    await intended(ledger)
    await ledger.mark_unknown("k1", "lost", NOW + 1, ask_at=NOW + 2)
    await ledger.postpone("k1", NOW + 3)
    await ledger.reject("k1", "nothing was created", NOW + 4)

    again = intent(
        model="m2", input={}, digest="d2", until=NOW + 70, context=None, webhook=False, cost=None
    )
    answer = await ledger.intend(again, UNLIMITED, NOW + 10)

    expected = Entry(
        key="k1",
        model="m2",
        input={},
        digest="d2",
        until=NOW + 70,
        state=State.INTENDED,
        tries=2,
        sent_at=NOW + 10,
        webhook=False,
        ask_at=NOW + 70,
    )
    assert answer == IntentWritten(expected, fresh=True)
    assert await only(ledger) == expected


@pytest.mark.parametrize("before", ["intended", "unknown", "rejected"])
async def test_accept_goes_over_all_that_is_less(ledger: Ledger, before: str) -> None:
    """INTENDED, UNKNOWN, REJECTED to ACCEPTED: word of a task goes over the belief in none."""
    entry = await intended(ledger)
    if before == "unknown":
        await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW + 5)
    if before == "rejected":
        await ledger.reject("k1", "refused", NOW)

    answer = await ledger.accept("k1", prediction("t1", "created"), NOW + 2, expected_at=NOW + 99)

    assert answer == await only(ledger)
    assert answer == replace(
        entry,
        state=State.ACCEPTED,
        task_id="t1",
        status="created",
        accepted_at=NOW + 2,
        expected_at=NOW + 99,
        ask_at=NOW + 99,
    )


async def test_accept_of_an_unknown_key(ledger: Ledger) -> None:
    """There is no such entry: a KeyError, and nobody beside it fails."""
    await intended(ledger)

    bad, good = await asyncio.gather(
        ledger.accept("no", prediction(), NOW, expected_at=NOW),
        ledger.accept("k1", prediction(), NOW, expected_at=NOW),
        return_exceptions=True,
    )

    assert isinstance(bad, KeyError)
    assert isinstance(good, Entry)
    assert (await only(ledger)).state is State.ACCEPTED


async def test_a_guess_changes_nothing_that_is_known(ledger: Ledger) -> None:
    """ACCEPTED stays as it is, where the later word is a guess."""
    sure = await accepted(ledger)

    answer = await ledger.accept("k1", prediction("t2"), NOW + 9, expected_at=NOW + 9, guessed=True)

    assert answer == sure == await only(ledger)


async def test_the_api_s_word_goes_over_a_guess(ledger: Ledger) -> None:
    """An answer that comes after all names the task."""
    assert (await accepted(ledger, guessed=True)).guessed

    await ledger.accept("k1", prediction("t2", "created"), NOW + 9, expected_at=NOW + 400)

    found = await only(ledger)
    assert (found.task_id, found.guessed, found.ask_at) == ("t2", False, NOW + 400)


async def test_two_do_not_guess_one_task(ledger: Ledger) -> None:
    """F32: two lost answers alike, settled by two processes: each task is of one submission."""
    await accepted(ledger, "k1", "t1", guessed=True)
    await intended(ledger, "k2")

    answer = await ledger.accept("k2", prediction("t1"), NOW, expected_at=NOW, guessed=True)

    assert (answer.state, answer.task_id) == (State.INTENDED, None)
    assert answer == await only(ledger, "k2")


@pytest.mark.parametrize("by", ["accept", "finish"])
async def test_a_wrong_guess_is_looked_for_again(ledger: Ledger, by: str) -> None:
    """F32: the task proves to be of another key; whoever guessed it is in doubt again."""
    guess = await accepted(ledger, "k1", "t1", guessed=True)
    await intended(ledger, "k2")

    if by == "accept":
        await ledger.accept("k2", prediction("t1"), NOW + 5, expected_at=NOW + 50)
    else:
        await ledger.finish([result("t1", "k2")], NOW + 5)

    found = await only(ledger)
    assert found.reason
    assert found == replace(
        guess,
        state=State.UNKNOWN,
        reason=found.reason,
        task_id=None,
        guessed=False,
        status=None,
        accepted_at=None,
        expected_at=None,
        ask_at=NOW + 5,
    )
    assert (await ledger.find_tasks(["t1"]))["t1"].key == "k2"


@pytest.mark.parametrize("late", ["accept", "guess", "doubt", "reject", "postpone", "intend"])
async def test_finished_is_for_good(ledger: Ledger, late: str) -> None:
    """F28: whatever is said later, in whatever order the words come, the result stays."""
    await intended(ledger)
    (done,) = await ledger.finish([result("t1", "k1")], NOW + 5)

    task = prediction("t9", "created")
    match late:
        case "accept":
            assert await ledger.accept("k1", task, NOW + 9, expected_at=NOW) == done
        case "guess":
            assert await ledger.accept("k1", task, NOW, expected_at=NOW, guessed=True) == done
        case "doubt":
            await ledger.mark_unknown("k1", "lost", NOW + 9, ask_at=NOW)
        case "reject":
            assert not await ledger.reject("k1", "no", NOW + 9)
        case "postpone":
            await ledger.postpone("k1", NOW + 9)
        case "intend":
            answer = await ledger.intend(intent(digest="d2"), UNLIMITED, NOW + 9)
            assert answer == IntentWritten(done, fresh=False)

    assert await only(ledger) == done


@pytest.mark.parametrize("late", ["doubt", "reject"])
async def test_a_late_doubt_does_not_take_the_task_away(ledger: Ledger, late: str) -> None:
    """ACCEPTED goes to FINISHED only."""
    entry = await accepted(ledger)

    if late == "doubt":
        await ledger.mark_unknown("k1", "lost", NOW + 9, ask_at=NOW)
    else:
        assert not await ledger.reject("k1", "no", NOW + 9)

    assert await only(ledger) == entry


async def test_doubt(ledger: Ledger) -> None:
    """INTENDED to UNKNOWN, once; a rejected one and one that is not there are left alone."""
    entry = await intended(ledger)
    await ledger.mark_unknown("k1", "HTTP 502", NOW + 1, ask_at=NOW + 31)
    await ledger.mark_unknown("k1", "later", NOW + 2, ask_at=NOW + 99)
    await ledger.mark_unknown("no", "HTTP 502", NOW, ask_at=NOW)

    expected = replace(entry, state=State.UNKNOWN, reason="HTTP 502", ask_at=NOW + 31)
    assert await ledger.find(["k1", "no"]) == {"k1": expected}

    await ledger.reject("k1", "nothing", NOW + 3)
    await ledger.mark_unknown("k1", "later", NOW + 4, ask_at=NOW)
    assert (await only(ledger)).state is State.REJECTED


async def test_reject(ledger: Ledger) -> None:
    """INTENDED or UNKNOWN to REJECTED, and only once is it said to have been so."""
    entry = await intended(ledger)

    assert await ledger.reject("k1", "HTTP 400", NOW + 1)
    assert not await ledger.reject("k1", "later", NOW + 2)
    assert not await ledger.reject("no", "HTTP 400", NOW)

    expected = replace(entry, state=State.REJECTED, reason="HTTP 400", ask_at=None)
    assert await ledger.find(["k1", "no"]) == {"k1": expected}


async def test_finish_by_task_id(ledger: Ledger) -> None:
    """The entry with the task id ends as its status says, with the whole result."""
    entry = await accepted(ledger)
    failed = prediction("t1", "failed", code=1200, error="moderation", has_nsfw_contents=None)

    done = await ledger.finish([Result(failed, delivered=True)], NOW + 60)

    assert done == [
        replace(
            entry,
            state=State.FINISHED,
            status="failed",
            finished_at=NOW + 60,
            ask_at=None,
            place=1,
            prediction=failed,
            delivered=True,
        )
    ]
    assert await ledger.find_tasks(["t1", "t2"]) == {"t1": done[0]}


@pytest.mark.parametrize("before", ["intended", "unknown", "rejected", "guessed", "accepted"])
async def test_finish_by_key_sets_the_task_id(ledger: Ledger, before: str) -> None:
    """F28, F32: a webhook that carries the key knows better than everybody."""
    if before in ("guessed", "accepted"):
        await accepted(ledger, task_id="t0", guessed=before == "guessed")
    else:
        await intended(ledger)
    if before == "unknown":
        await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW)
    if before == "rejected":
        await ledger.reject("k1", "nothing was created", NOW)

    (done,) = await ledger.finish([result("t1", "k1")], NOW + 5)

    assert done == await only(ledger)
    assert (done.state, done.task_id, done.guessed) == (State.FINISHED, "t1", False)
    assert (done.reason, done.ask_at, done.finished_at) == (None, None, NOW + 5)
    assert await ledger.find_tasks(["t0"]) == {}


async def test_a_guess_that_has_ended_is_still_a_guess(ledger: Ledger) -> None:
    """F33: a reconciler's answer about the guessed task does not make it the submission's own."""
    await accepted(ledger, guessed=True)

    (done,) = await ledger.finish([result("t1", "k1")], NOW + 5)

    assert (done, done.guessed) == (await only(ledger), True)


async def test_a_result_of_nobody(ledger: Ledger) -> None:
    """A receiver hears of tasks that no ledger knows: nothing happens."""
    entry = await accepted(ledger)

    assert await ledger.finish([], NOW) == []
    assert await ledger.finish([result("t9"), result("t8", "no")], NOW) == []

    assert await only(ledger) == entry
    assert await ledger.last_place() == 0


async def test_a_key_that_is_not_here_leaves_the_task_id(ledger: Ledger) -> None:
    """A purged or another ledger's key does not keep the result from its task."""
    await accepted(ledger)

    (done,) = await ledger.finish([result("t1", "elsewhere")], NOW)

    assert done.key == "k1"


async def test_the_first_result_stays(ledger: Ledger) -> None:
    """Promise 4, F30, F31: later ones only tell that the inbox has it, and only of this task."""
    await accepted(ledger)
    first, second = result(), Result(prediction("t1", "failed"), delivered=True)
    other = Result(prediction("t7"), key="k1", delivered=True)

    (done,) = await ledger.finish([first, first], NOW + 5)
    assert await ledger.finish([other], NOW + 6) == []
    assert await only(ledger) == done
    assert await ledger.finish([second], NOW + 6) == []
    assert await ledger.finish([result(), other], NOW + 7) == []

    assert await only(ledger) == replace(done, delivered=True)


async def test_places_follow_the_order_of_results(ledger: Ledger) -> None:
    """Promise 4: from 1, one each, so that a reader who remembers the last misses nothing."""
    for n in range(5):
        await accepted(ledger, f"k{n}", f"t{n}")

    await ledger.finish([result("t3"), result("t9"), result("t1", "k1"), result("t3")], NOW)
    await ledger.finish([result("t0"), result("t1")], NOW - 60)

    found = await ledger.finished(0)
    assert [(entry.place, entry.key) for entry in found] == [(1, "k3"), (2, "k1"), (3, "k0")]
    assert [entry.place for entry in await ledger.finished(1)] == [2, 3]
    assert [entry.place for entry in await ledger.finished(0, limit=2)] == [1, 2]
    assert await ledger.finished(3) == []
    assert await ledger.last_place() == 3


async def test_adopt(ledger: Ledger) -> None:
    """A task of another tool is watched from then on like one of ours."""
    task = prediction("t1", "processing", created_at="2027-01-15T07:59:00Z", input={"prompt": "x"})

    entry = await ledger.import_task(task, NOW, expected_at=NOW + 30, webhook=True)

    assert entry == Entry(
        key="task:t1",
        model=MODEL,
        input={"prompt": "x"},
        digest="",
        until=NOW,
        state=State.ACCEPTED,
        tries=0,
        sent_at=NOW - 60,
        webhook=True,
        task_id="t1",
        accepted_at=NOW - 60,
        expected_at=NOW + 30,
        ask_at=NOW + 30,
        status="processing",
    )
    assert await only(ledger, "task:t1") == entry
    assert [done.key for done in await ledger.finish([result()], NOW)] == ["task:t1"]


async def test_adopt_of_a_task_that_says_little(ledger: Ledger) -> None:
    """Neither model nor time nor input: it counts from now."""
    bare = Prediction.parse({"id": "t1", "status": "created"})
    assert bare is not None

    entry = await ledger.import_task(bare, NOW, expected_at=NOW + 30)

    assert (entry.model, entry.input, entry.sent_at, entry.webhook) == ("", {}, NOW, False)


async def test_adopt_leaves_what_is_there_alone(ledger: Ledger) -> None:
    """By its task id, whatever its state; or, where somebody chose such a key, by that."""
    sure = await accepted(ledger, "k1", "t1")
    chosen = await intended(ledger, "task:t2")

    assert await ledger.import_task(prediction("t1"), NOW, expected_at=NOW) == sure
    assert await ledger.import_task(prediction("t2"), NOW, expected_at=NOW) == chosen
    (done,) = await ledger.finish([result("t1")], NOW)
    assert await ledger.import_task(prediction("t1"), NOW, expected_at=NOW) == done
    assert len(await ledger.find(["k1", "task:t1", "task:t2"])) == 2


async def test_a_task_that_was_adopted_before_its_answer_came(ledger: Ledger) -> None:
    """Nobody waits for ever: the result ends both, and the id leads to the one that sent it."""
    await intended(ledger, "k1")
    await ledger.import_task(prediction("t1", "created"), NOW, expected_at=NOW + 30)
    await ledger.accept("k1", prediction("t1", "created"), NOW, expected_at=NOW + 30)

    done = await ledger.finish([result("t1", "k1")], NOW + 5)

    assert [(entry.key, entry.place) for entry in done] == [("k1", 1), ("task:t1", 2)]
    assert (await ledger.find_tasks(["t1"]))["t1"].key == "k1"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1.5,
        "",
        "\ud800 \x00 é 🌊",
        [],
        {},
        {"a": [None, {"": "b"}]},
        2**70,
        "null",
    ],
)
async def test_any_json_comes_back_as_it_was(ledger: Ledger, value: JSON) -> None:
    """Context, input and prediction, to the last half of a character."""
    task = prediction("t1", "completed", extra=value, outputs=["u"])
    await intended(ledger, context=value, input={"x": value})
    await ledger.finish([Result(task, "k1")], NOW)

    entry = await only(ledger)
    assert (entry.context, entry.input, entry.prediction) == (value, {"x": value}, task)


async def test_a_status_that_no_text_can_be(ledger: Ledger) -> None:
    """What the API says of a paid task may be odd; the task is recorded all the same."""
    await intended(ledger)

    await ledger.accept("k1", prediction("t1", "\ud800"), NOW, expected_at=NOW)

    assert (await only(ledger)).task_id == "t1"


async def test_what_is_returned_is_the_caller_s_own(ledger: Ledger) -> None:
    """Changing an input that was given, or an entry that was got, changes nothing stored."""
    given = {"prompt": ["a"]}
    entry = await intended(ledger, input=given)
    given["prompt"].append("b")
    found = (await only(ledger)).input["prompt"]
    assert isinstance(found, list)
    found.append("c")

    assert (await only(ledger)).input == {"prompt": ["a"]}
    assert entry.input in ({"prompt": ["a"]}, given)
