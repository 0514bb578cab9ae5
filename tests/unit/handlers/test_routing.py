"""Which handlers an event goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.event import PARKED
from receiver.handlers.routing import MAX_CACHED_PLANS, Route, Router, match
from tests.support.events import event


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        (("*",), True),
        (("prediction.*",), True),
        (("prediction.completed",), True),
        (("prediction.failed",), False),
        (("prediction.failed", "prediction.c*"), True),
        (("Prediction.Completed",), False),
        (("completed",), False),
    ],
)
def test_types_are_globs(globs: tuple[str, ...], wanted: bool) -> None:
    """A handler gets the types that one of its globs takes whole, in the same case."""
    assert Route("a", on=globs).wants(event()) is wanted


@pytest.mark.parametrize(
    ("model", "globs", "wanted"),
    [
        ("kwaivgi/kling", ("kwaivgi/*",), True),
        ("kwaivgi/kling", ("other/*",), False),
        (None, ("*",), True),
        (None, ("kwaivgi/*",), False),
    ],
)
def test_models_are_globs(model: str | None, globs: tuple[str, ...], wanted: bool) -> None:
    """F18: the model comes from the signed body; an event without one goes only to `*`."""
    assert Route("a", models=globs).wants(event(model=model)) is wanted


def test_sources_are_globs() -> None:
    """F19: a handler can keep to the events of one source."""
    assert Route("a", sources=("wave*",)).wants(event())
    assert not Route("a", sources=("github",)).wants(event())


@pytest.mark.parametrize("globs", [("*",), ("park*",), ("*", "prediction.*")])
def test_a_parked_event_is_not_caught_by_a_glob(globs: tuple[str, ...]) -> None:
    """F11: what could not be read goes to no handler that did not name it."""
    assert not Route("a", on=globs).wants(event(type=PARKED, model=None))


def test_a_parked_event_goes_to_whoever_names_it() -> None:
    """F11: a handler that says `parked` gets it, also beside other globs."""
    assert Route("a", on=("prediction.*", "parked")).wants(event(type=PARKED, model=None))


def test_a_plan_waits_only_for_handlers_of_the_same_event() -> None:
    """`after` names a handler that did not get the event: it is not waited for."""
    routes = [
        Route("keep"),
        Route("failures", on=("prediction.failed",)),
        Route("tell", after=("keep", "failures")),
    ]
    assert match(event(), routes) == {"keep": (), "tell": ("keep",)}


def test_no_routes_no_plan() -> None:
    """An event that nobody wants has an empty plan, and is stored all the same."""
    assert match(event(), [Route("a", on=("other",))]) == {}


def test_a_router_remembers_the_same_plan() -> None:
    """F18: what is remembered is kept by type, model and source, and is what matching gives."""
    routes = [
        Route("keep", models=("kwaivgi/*",)),
        Route("tell", on=("prediction.failed",), after=("keep",)),
    ]
    router = Router(routes)
    kinds = [
        event(type=type, model=model)
        for type in ("prediction.completed", "prediction.failed", PARKED)
        for model in ("kwaivgi/kling", "other/one", None)
    ]
    for one in kinds * 2:
        assert router.match(one) == match(one, routes)


def test_a_router_remembers_no_more_than_its_memory() -> None:
    """F45: a sender with ever new models does not fill the memory."""
    router = Router([Route("keep")])
    for number in range(MAX_CACHED_PLANS * 2 + 1):
        assert router.match(event(model=str(number))) == {"keep": ()}
    assert len(router._found) <= MAX_CACHED_PLANS


@given(
    type=st.text(max_size=40),
    model=st.none() | st.text(max_size=40),
    glob=st.text(alphabet="ab*?[]!-\\.\n", max_size=12),
)
def test_any_glob_and_any_text_give_an_answer(type: str, model: str | None, glob: str) -> None:
    """F17: no pattern and no text makes matching fail, and `*` takes all but the parked."""
    route = Route("a", on=(glob,), models=(glob,))
    assert route.wants(event(type=type, model=model)) in (True, False)
    assert Route("b").wants(event(type=type, model=model)) is (type != PARKED)
