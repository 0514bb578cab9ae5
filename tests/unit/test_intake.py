"""The only way in: verify, open the token, route, store; in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from receiver.errors import Stale, StoreUnavailable, UnknownSource, Unverified
from receiver.event import PARKED, Delivery, Dispatch, DispatchState, Event, Origin
from receiver.intake import Intake, Trusted
from receiver.routing import Route
from receiver.stores.memory import MemoryStore
from submitter.prediction import JSON

NOW = 1_800_000_000.0
DELIVERY = Delivery("mine", (), b"{}", received_at=NOW)
EVENT = Event(
    id="mine:task-1:completed",
    source="mine",
    type="prediction.completed",
    subject="task-1",
    model="kwaivgi/kling",
    body=b"{}",
    received_at=NOW,
)


class Says:
    """A source whose verification has a known end."""

    name = "mine"

    def __init__(self, end: Event | Exception = EVENT) -> None:
        self.end = end
        self.asked: list[tuple[Delivery, Sequence[bytes], float]] = []

    def key(self, secret: str) -> bytes:
        return secret.encode()

    def verify(self, delivery: Delivery, keys: Sequence[bytes], now: float) -> Event:
        self.asked.append((delivery, keys, now))
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


@dataclass
class Held:
    """What a token holds."""

    context: JSON
    model: str | None = None


class Tokens:
    """Opens the tokens that it knows."""

    def __init__(self, **known: Held) -> None:
        self.known = known
        self.opened: list[tuple[str, float]] = []

    def open(self, token: str, now: float) -> Held | None:
        self.opened.append((token, now))
        return self.known.get(token)


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.open()
    return store


ROUTES = [
    Route("keep"),
    Route("tell", on=("prediction.failed",)),
    Route("show", on=("prediction.*",), models=("kwaivgi/*",), after=("keep", "tell")),
    Route("look", on=(PARKED,)),
]


def intake(store: MemoryStore, source: Says | None = None, seal: Tokens | None = None) -> Intake:
    return Intake({"mine": Trusted(source or Says(), [b"key"])}, ROUTES, store, seal)


async def test_a_verified_delivery_is_stored_for_the_handlers_that_want_it(
    store: MemoryStore,
) -> None:
    """F18: routing is by the signed type and model, and waits only for handlers that got it."""
    accepted = await intake(store).accept(DELIVERY)

    assert (accepted.event, accepted.receipt.duplicate) == (EVENT, False)
    assert await store.event(EVENT.id) == EVENT
    assert await store.dispatches(EVENT.id) == [
        Dispatch(EVENT.id, "keep", due_at=NOW),
        Dispatch(EVENT.id, "show", due_at=NOW, after=("keep",), waiting=True),
    ]


async def test_a_source_is_given_its_keys_and_the_time_of_arrival(store: MemoryStore) -> None:
    """F6, F19: time is the delivery's own, and the keys are those of its source."""
    source = Says()

    await intake(store, source).accept(DELIVERY)

    assert source.asked == [(DELIVERY, [b"key"], NOW)]


async def test_the_same_event_again_is_a_duplicate(store: MemoryStore) -> None:
    """F5, F30: the second receipt names the first event."""
    first = await intake(store).accept(DELIVERY)
    second = await intake(store).accept(DELIVERY)

    assert (first.receipt.duplicate, second.receipt.duplicate) == (False, True)
    assert first.receipt.id == second.receipt.id


async def test_an_unknown_source_is_refused(store: MemoryStore) -> None:
    """A name that is not configured has no keys, and so no way in."""
    with pytest.raises(UnknownSource):
        await intake(store).accept(replace(DELIVERY, source="other"))


@pytest.mark.parametrize("refusal", [Unverified("signature"), Stale(400.0, "task-1")])
async def test_what_is_not_verified_touches_nothing(refusal: Exception) -> None:
    """F4: neither the store, here a closed one that would raise, nor the token is looked at."""
    tokens = Tokens(t=Held(1))

    with pytest.raises(type(refusal)):
        await intake(MemoryStore(), Says(refusal), tokens).accept(replace(DELIVERY, token="t"))

    assert tokens.opened == []


@pytest.mark.parametrize("model", [None, "kwaivgi/kling"])
async def test_a_token_brings_its_context(store: MemoryStore, model: str | None) -> None:
    """A token for this model, or for any, is opened, and its context is stored."""
    tokens = Tokens(t=Held({"job": 7}, model))

    accepted = await intake(store, seal=tokens).accept(replace(DELIVERY, token="t"))

    assert accepted.event == replace(EVENT, context={"job": 7})
    assert await store.event(EVENT.id) == accepted.event
    assert tokens.opened == [("t", NOW)]


@pytest.mark.parametrize(
    ("tokens", "token"),
    [
        (None, "t"),
        (Tokens(), "t"),
        (Tokens(), ""),
        (Tokens(t=Held(1, "another/model")), "t"),
    ],
    ids=["no keys", "not ours", "empty", "another model's"],
)
async def test_a_token_that_does_not_fit_is_refused(tokens: Tokens | None, token: str) -> None:
    """F33: forged, foreign and moved tokens are 401, before the store is asked."""
    with pytest.raises(Unverified) as raised:
        await intake(MemoryStore(), seal=tokens).accept(replace(DELIVERY, token=token))

    assert raised.value.reason == "token"


async def test_a_parked_event_keeps_its_context(store: MemoryStore) -> None:
    """F11: a signed body without a readable model is kept, with what its token says."""
    parked = replace(EVENT, id="mine:m:0", type=PARKED, model=None, subject=None)
    tokens = Tokens(t=Held("who", "any/model"))

    accepted = await intake(store, Says(parked), tokens).accept(replace(DELIVERY, token="t"))

    assert accepted.event.context == "who"
    assert [each.handler for each in await store.dispatches(parked.id)] == ["look"]


async def test_a_store_that_is_down_is_the_senders_to_try_again() -> None:
    """F20: what is verified and not stored is said to be so."""
    with pytest.raises(StoreUnavailable):
        await intake(MemoryStore()).accept(DELIVERY)


async def test_a_fetched_event_takes_the_same_way(store: MemoryStore) -> None:
    """F29, F30: a result from the API meets the webhook on one key."""
    fetched = replace(EVENT, origin=Origin.RECONCILE)

    first = await intake(store).store(fetched)
    second = await intake(store).accept(DELIVERY)

    assert (first.receipt.duplicate, second.receipt.duplicate) == (False, True)
    assert await store.event(EVENT.id) == fetched


async def test_replay_lets_todays_handlers_act_again(store: MemoryStore) -> None:
    """A replay goes to the handlers that the settings of today name."""
    await store.add(EVENT, {})

    assert await intake(store).replay(EVENT.id, NOW + 5)

    states = {each.handler: each.state for each in await store.dispatches(EVENT.id)}
    assert states == {"keep": DispatchState.PENDING, "show": DispatchState.PENDING}


async def test_replay_for_named_handlers_waits_only_for_those(store: MemoryStore) -> None:
    """A person may choose handlers, also one that did not want the event."""
    await store.add(EVENT, {})

    assert await intake(store).replay(EVENT.id, NOW, ["show", "tell"])

    found = {each.handler: each.after for each in await store.dispatches(EVENT.id)}
    assert found == {"show": (), "tell": ()}


async def test_replay_of_nothing_is_false(store: MemoryStore) -> None:
    """An id that is not stored cannot be replayed."""
    assert not await intake(store).replay("mine:none:completed", NOW)
