"""The words of `--faults`, and the decisions behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.simulator import FaultKind, Faults, FaultsError

rates = st.floats(min_value=0, max_value=1)


@given(st.dictionaries(st.sampled_from(FaultKind), rates), st.booleans())
def test_words_are_read_as_they_are_written(wanted: dict[FaultKind, float], spaced: bool) -> None:
    """Every fault gets the probability that stands beside its name."""
    comma = " , " if spaced else ","
    text = comma.join(f"{fault}={rate!r}" for fault, rate in wanted.items())
    assert Faults.parse(text).rates == wanted


@given(st.text())
def test_any_text_is_faults_or_an_error_that_helps(text: str) -> None:
    """Whatever is given, the answer is probabilities or words that say what to write."""
    try:
        faults = Faults.parse(text)
    except FaultsError as error:
        faults, words = Faults(), str(error)
    else:
        words = "Use all, or some of"
    assert "Use all, or some of" in words or "from 0 to 1" in words
    assert all(0 <= rate <= 1 for rate in faults.rates.values())


def test_a_bare_name_means_always() -> None:
    """`drop` drops every webhook."""
    assert Faults.parse("drop").rates == {FaultKind.DROP: 1.0}


@pytest.mark.parametrize(("text", "rate"), [("all", 0.1), ("all=0.5", 0.5)])
def test_all_names_every_fault(text: str, rate: float) -> None:
    """`all` gives one probability to each fault."""
    assert Faults.parse(text).rates == dict.fromkeys(FaultKind, rate)


def test_later_words_go_over_earlier_ones() -> None:
    """`all,drop=0` is everything but drop."""
    rates = Faults.parse("all=0.2,drop=0").rates
    assert rates[FaultKind.DROP] == 0
    assert rates[FaultKind.DELAY] == 0.2


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """A slip of the pen is told apart from what there is."""
    with pytest.raises(FaultsError) as caught:
        Faults.parse("dupe=0.1")
    assert "'dupe'" in str(caught.value)
    assert all(fault in str(caught.value) for fault in FaultKind)


@pytest.mark.parametrize("number", ["", "2", "-0.1", "nan", "often"])
def test_a_probability_is_from_0_to_1(number: str) -> None:
    """Anything else is refused with what was expected."""
    with pytest.raises(FaultsError, match="from 0 to 1"):
        Faults.parse(f"drop={number}")


def test_the_same_seed_gives_the_same_faults() -> None:
    """A run can be repeated, and another seed is another run."""
    one, same, other = (Faults({FaultKind.DROP: 0.5}, seed) for seed in (7, 7, 8))
    hits = [[faults.hits(FaultKind.DROP, n) for n in range(200)] for faults in (one, same, other)]
    assert hits[0] == hits[1]
    assert hits[0] != hits[2]


def test_a_fault_is_decided_for_whatever_it_may_happen_to() -> None:
    """Calls of two kinds, and items of two queries, have each their own fate."""
    faults = Faults({FaultKind.MISSING_HISTORY: 0.5})
    keys = [("history", query, item) for query in range(20) for item in range(20)]
    hits = {key: faults.hits(FaultKind.MISSING_HISTORY, *key) for key in keys}
    assert 120 < sum(hits.values()) < 280
    assert (
        len({tuple(hits["history", query, item] for item in range(20)) for query in range(20)}) > 9
    )


def test_a_fault_happens_as_often_as_it_was_asked_for() -> None:
    """Of 2000 tasks a fault at 0.1 hits about 200; at 0 and 1, none and all."""
    hit = sum(Faults({FaultKind.DELAY: 0.1}).hits(FaultKind.DELAY, n) for n in range(2000))
    assert 150 < hit < 250
    assert not any(Faults({FaultKind.DELAY: 0.0}).hits(FaultKind.DELAY, n) for n in range(500))
    assert all(Faults({FaultKind.DELAY: 1.0}).hits(FaultKind.DELAY, n) for n in range(500))
    assert not Faults().hits(FaultKind.DELAY, 0)
