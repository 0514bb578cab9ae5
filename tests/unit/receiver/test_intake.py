"""The only way in: verify, open the token, route, store; in this order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from receiver.errors import ApiUnavailable, Stale, StoreUnavailable, UnknownSource, Unverified
from receiver.event import PARKED, Delivery, Dispatch, DispatchState, Event, Origin
from receiver.handlers.routing import Route
from receiver.intake import Accepted, Fetch, Intake, TrustedSource
from receiver.sources.base import fetched_event
from receiver.stores.memory import MemoryStore
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, State
from submitter.ledger.memory import MemoryLedger
from submitter.prediction import JSON, Prediction
from submitter.submit.context_token import Seal, Sealed

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


class Tokens(Seal):
    """Opens the tokens that it knows."""

    def __init__(self, **known: Sealed) -> None:
        self.known = known
        self.opened: list[tuple[str, float]] = []

    def open(self, token: str, now: float) -> Sealed | None:
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
    return Intake({"mine": TrustedSource(source or Says(), [b"key"])}, ROUTES, store, seal)


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
    tokens = Tokens(t=Sealed(1))

    with pytest.raises(type(refusal)):
        await intake(MemoryStore(), Says(refusal), tokens).accept(replace(DELIVERY, token="t"))

    assert tokens.opened == []


@pytest.mark.parametrize("model", [None, "kwaivgi/kling"])
async def test_a_token_brings_its_context(store: MemoryStore, model: str | None) -> None:
    """A token for this model, or for any, is opened, and its context is stored."""
    tokens = Tokens(t=Sealed({"job": 7}, model))

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
        (Tokens(t=Sealed(1, "another/model")), "t"),
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
    tokens = Tokens(t=Sealed("who", "any/model"))

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


class Known(MemoryLedger):
    """A ledger that knows one submission, or fails."""

    def __init__(self, entry: Entry | None = None, error: Exception | None = None) -> None:
        super().__init__()
        self.entry = entry
        self.error = error
        self.asked: list[Sequence[str]] = []

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        self.asked.append(keys)
        if self.error is not None:
            raise self.error
        return {} if self.entry is None else {self.entry.key: self.entry}


def entry(task_id: str | None, *, guessed: bool = False, tries: int = 1) -> Entry:
    return Entry(
        key="k",
        model="kwaivgi/kling",
        input={},
        digest="d",
        until=NOW,
        state=State.ACCEPTED,
        tries=tries,
        sent_at=NOW,
        task_id=task_id,
        guessed=guessed,
    )


def keyed(store: MemoryStore, owners: Known, end: Event | Exception = EVENT) -> Intake:
    sources = {"mine": TrustedSource(Says(end), [])}
    return Intake(sources, ROUTES, store, Tokens(t=Sealed(1, None, "k")), ledger=owners)


@pytest.mark.parametrize(
    "known",
    [
        None,
        entry(None),
        entry("task-1"),
        entry("task-2", guessed=True),
        entry("task-2", tries=2),
    ],
    ids=["no such key", "no answer yet", "its task", "a guess", "sent again, and both exist"],
)
async def test_a_token_brings_the_key_of_its_submission(
    store: MemoryStore, known: Entry | None
) -> None:
    """F28: a webhook is taken in before the answer to its submit is known, and names its key."""
    owners = Known(known)

    accepted = await keyed(store, owners).accept(replace(DELIVERY, token="t"))

    assert accepted.submission == "k"
    assert owners.asked == [["k"]]


async def test_a_token_of_another_task_is_refused() -> None:
    """F33: swapped for a token of the same model, it is seen by its submission."""
    with pytest.raises(Unverified) as raised:
        await keyed(MemoryStore(), Known(entry("task-2"))).accept(replace(DELIVERY, token="t"))

    assert raised.value.reason == "token"


async def test_a_parked_event_belongs_to_no_other_task(store: MemoryStore) -> None:
    """F11: a signed body that nobody can read is kept, whatever its token says."""
    parked = replace(EVENT, id="mine:m:0", type=PARKED, model=None, subject=None)

    accepted = await keyed(store, Known(entry("task-2")), parked).accept(
        replace(DELIVERY, token="t")
    )

    assert accepted.event.parked


async def test_a_ledger_that_is_away_leaves_the_event_with_its_sender() -> None:
    """F20, F33: what cannot be checked is neither stored nor refused for good."""
    owners = Known(error=LedgerUnavailable("locked"))

    with pytest.raises(StoreUnavailable, match="locked"):
        await keyed(MemoryStore(), owners).accept(replace(DELIVERY, token="t"))


async def test_a_token_without_a_key_does_not_ask_the_ledger(store: MemoryStore) -> None:
    """A token of an older version, or of a submitter without a ledger, is as good."""
    owners = Known()
    sources = {"mine": TrustedSource(Says(), [])}
    taken = Intake(sources, ROUTES, store, Tokens(t=Sealed(1)), ledger=owners)

    assert (await taken.accept(replace(DELIVERY, token="t"))).submission is None
    assert owners.asked == []


async def test_observers_are_told_of_new_events_once_they_are_stored(store: MemoryStore) -> None:
    """However it came in; of a duplicate nobody is told."""
    first: list[Accepted] = []
    second: list[Accepted] = []
    taken = Intake(
        {"mine": TrustedSource(Says(), [])}, ROUTES, store, stored=[first.append, second.append]
    )

    accepted = await taken.accept(DELIVERY)
    await taken.accept(DELIVERY)
    other = await taken.store(replace(EVENT, id="other"), "k")

    assert first == second == [accepted, other]
    assert other.submission == "k"


async def test_observers_hear_nothing_of_what_is_not_stored() -> None:
    """F20: a store that fails has stored nothing."""
    told: list[Accepted] = []

    with pytest.raises(StoreUnavailable):
        await Intake(
            {"mine": TrustedSource(Says(), [])}, ROUTES, MemoryStore(), stored=[told.append]
        ).accept(DELIVERY)

    assert told == []


LATE = replace(DELIVERY, source="wavespeed")
RAW: dict[str, JSON] = {"id": "task-1", "status": "completed", "model": "kwaivgi/kling"}


class Api:
    """What the API says of a task."""

    def __init__(self, answer: dict[str, JSON] | Exception | None = None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def fetch(self, task_id: str) -> Prediction | None:
        self.asked.append(task_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Prediction.parse(self.answer)


def late(
    store: MemoryStore,
    fetch: Fetch | None,
    *,
    seal: Tokens | None = None,
    owners: Known | None = None,
    subject: str | None = "task-1",
    skew: float = 400.0,
    source: str = "wavespeed",
) -> Intake:
    sources = {source: TrustedSource(Says(Stale(skew, subject)), [])}
    return Intake(sources, ROUTES, store, seal, ledger=owners, fetch=fetch)


@pytest.mark.parametrize("skew", [400.0, -400.0], ids=["old", "of the future"])
async def test_the_result_of_a_late_delivery_is_fetched(store: MemoryStore, skew: float) -> None:
    """F7: what the API says goes the way of every event, with the context of the token."""
    api = Api(RAW | {"outputs": ["https://cdn.example/1.mp4"]})
    seal = Tokens(t=Sealed({"job": 7}, "kwaivgi/kling", "k"))

    accepted = await late(store, api.fetch, seal=seal, owners=Known(), skew=skew).accept(
        replace(LATE, token="t", body=b"not believed")
    )

    event = accepted.event
    assert (event.id, event.origin) == ("wavespeed:task-1:completed", Origin.RECONCILE)
    assert (event.context, event.received_at) == ({"job": 7}, NOW)
    assert (accepted.receipt.duplicate, accepted.submission) == (False, "k")
    assert event.prediction is not None
    assert event.prediction.outputs == ("https://cdn.example/1.mp4",)
    assert await store.event(event.id) == event
    assert [each.handler for each in await store.dispatches(event.id)] == ["keep", "show"]


async def test_a_late_delivery_without_a_token_has_no_context(store: MemoryStore) -> None:
    """F7: a plain webhook URL is as good."""
    accepted = await late(store, Api(RAW).fetch).accept(LATE)

    assert (accepted.event.context, accepted.submission) == (None, None)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "timeout"])
async def test_a_late_delivery_of_what_is_stored_asks_nobody(
    store: MemoryStore, status: str
) -> None:
    """F5, F7: the inbox is asked before the API, and a replay costs no question."""
    event = replace(EVENT, id=f"wavespeed:task-1:{status}", source="wavespeed")
    await store.add(event, {})
    api = Api(RAW)

    accepted = await late(store, api.fetch).accept(LATE)

    assert (accepted.receipt.id, accepted.receipt.duplicate) == (event.id, True)
    assert accepted.event == event
    assert api.asked == []


@pytest.mark.parametrize(
    "answer",
    [None, RAW | {"status": "processing"}, RAW | {"id": "task-2"}],
    ids=["unknown", "running", "another task"],
)
async def test_a_late_delivery_that_the_api_does_not_confirm_is_refused(
    store: MemoryStore, answer: dict[str, JSON] | None
) -> None:
    """F7: the body alone is never believed."""
    with pytest.raises(Stale):
        await late(store, Api(answer).fetch).accept(LATE)

    assert await store.events() == []


async def test_a_late_delivery_is_the_senders_to_try_again_where_the_api_is_away(
    store: MemoryStore,
) -> None:
    """F7: a signed event is never lost."""
    with pytest.raises(ApiUnavailable):
        await late(store, Api(ApiUnavailable("away", 30)).fetch).accept(LATE)


@pytest.mark.parametrize(
    ("seal", "owners"),
    [
        (None, None),
        (Tokens(), None),
        (Tokens(t=Sealed(1, None, "k")), Known(entry("task-2"))),
    ],
    ids=["no keys", "not ours", "another task's"],
)
async def test_the_token_of_a_late_delivery_opens_first(
    seal: Tokens | None, owners: Known | None
) -> None:
    """F33: before the store, here closed, and the API are asked."""
    api = Api(RAW)

    with pytest.raises(Unverified) as raised:
        await late(MemoryStore(), api.fetch, seal=seal, owners=owners).accept(
            replace(LATE, token="t")
        )

    assert (raised.value.reason, api.asked) == ("token", [])


async def test_the_token_of_a_late_delivery_belongs_to_its_model(store: MemoryStore) -> None:
    """F33: the model is the one that the API names."""
    seal = Tokens(t=Sealed(1, "another/model"))

    with pytest.raises(Unverified):
        await late(store, Api(RAW).fetch, seal=seal).accept(replace(LATE, token="t"))

    assert await store.events() == []


def _none(_: Api) -> Fetch | None:
    return None


def _ask(api: Api) -> Fetch | None:
    return api.fetch


@pytest.mark.parametrize(
    ("fetch", "subject", "source"),
    [(_none, "task-1", "wavespeed"), (_ask, None, "wavespeed"), (_ask, "task-1", "other")],
    ids=["no API key", "no task id", "another source"],
)
async def test_a_late_delivery_that_cannot_be_asked_about_is_refused(
    fetch: Callable[[Api], Fetch | None], subject: str | None, source: str
) -> None:
    """F4, F5: as ever; nothing is read or written."""
    api = Api(RAW)

    with pytest.raises(Stale):
        await late(MemoryStore(), fetch(api), subject=subject, source=source).accept(
            replace(LATE, source=source)
        )

    assert api.asked == []


async def test_webhook_retry_reconcile_and_replay_are_one_event(store: MemoryStore) -> None:
    """F30: one event, each handler once."""
    event = replace(EVENT, id="wavespeed:task-1:completed", source="wavespeed")
    taken = Intake({"wavespeed": TrustedSource(Says(event), [])}, ROUTES, store)
    asked = Prediction.parse(RAW | {"outputs": []})
    assert asked is not None

    receipts = [
        (await taken.accept(LATE)).receipt,
        (await taken.accept(LATE)).receipt,
        (await taken.store(fetched_event(asked, context=None, now=NOW + 9))).receipt,
        (await late(store, Api(RAW).fetch).accept(LATE)).receipt,
    ]
    dispatches = await store.dispatches(event.id)
    assert await taken.replay(event.id, NOW)

    assert [receipt.duplicate for receipt in receipts] == [False, True, True, True]
    assert {receipt.id for receipt in receipts} == {event.id}
    assert await store.dispatches(event.id) == dispatches
    assert len(dispatches) == 2


def test_a_fetched_result_reads_as_its_webhook_would() -> None:
    """F11, F30: also where the API's text would park a webhook; nothing is lost over a letter."""
    raw = RAW | {"status": "failed", "error": "half a letter \ud800, é"}
    asked = Prediction.parse(raw)
    assert asked is not None

    event = fetched_event(asked, context=["c"], now=NOW)

    assert (event.id, event.type) == ("wavespeed:task-1:failed", "prediction.failed")
    assert (event.subject, event.model, event.context) == ("task-1", "kwaivgi/kling", ["c"])
    assert (event.occurred_at, event.received_at, event.webhook_id) == (NOW, NOW, None)
    assert event.prediction is not None
    assert event.prediction.error == "half a letter ?, é"
