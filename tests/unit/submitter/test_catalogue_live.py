"""The live catalogue: asked once an hour, kept on disk, never in the way."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.api.models import Model
from submitter.catalogue import builtin_model, builtin_models, live
from submitter.catalogue.live import Catalogue, CatalogueFile, CatalogueSnapshot, bounded
from submitter.catalogue.validation import MAX_SCHEMA_CHARS
from submitter.errors import ApiError, AuthFailed, RateLimited, SubmitterError, Unavailable
from submitter.prediction import JSON

KLING = "kwaivgi/kling-v2.1-i2v-standard"
FLUX = Model("acme/flux", "Flux", "Pictures.", "text-to-image", 0.01, {"type": "object"})
WAN = Model("acme/wan", "Wan")

HOUR = 3600.0


class Api:
    """Gives its models or raises, and counts how often it was asked."""

    def __init__(self, *models: Model, clock: float = 1_000_000.0) -> None:
        self.models: Sequence[Model] = models
        self.error: Exception | None = None
        self.asked = 0
        self.now = clock

    async def fetch(self) -> Sequence[Model]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.models

    def catalogue(self, folder: Path, name: str = "") -> Catalogue:
        return Catalogue(self.fetch, name=name, folder=folder, clock=lambda: self.now)


async def test_a_built_in_model_needs_no_network(tmp_path: Path) -> None:
    """What ships with the package is known without asking or writing."""
    api = Api(FLUX)
    assert await api.catalogue(tmp_path / "c").model(KLING) == builtin_model(KLING)
    assert api.asked == 0
    assert not (tmp_path / "c").exists()


async def test_any_other_model_is_asked_for_once_an_hour(tmp_path: Path) -> None:
    """One answer is enough for an hour, for what it holds and for what it does not."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    assert await catalogue.model(FLUX.id) == FLUX
    assert await catalogue.model("acme/none") is None
    assert await catalogue.model("acme/none") is None
    assert catalogue.as_of == api.now
    assert api.asked == 1
    api.now += HOUR
    api.models = [FLUX, WAN]
    assert await catalogue.model(WAN.id) == WAN
    assert api.asked == 2


async def test_many_at_once_ask_once(tmp_path: Path) -> None:
    """Concurrent callers share one request."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    found = await asyncio.gather(*(catalogue.model(FLUX.id) for _ in range(20)))
    assert found == [FLUX] * 20
    assert api.asked == 1


async def test_another_process_reads_the_file(tmp_path: Path) -> None:
    """Within the hour nobody else asks, except for another address."""
    api = Api(FLUX)
    await api.catalogue(tmp_path, "one").models()
    again = api.catalogue(tmp_path, "one")
    assert await again.model(FLUX.id) == FLUX
    assert await again.model("acme/none") is None
    assert api.asked == 1
    await api.catalogue(tmp_path, "two").models()
    assert api.asked == 2


async def test_what_another_process_fetched_is_taken_up(tmp_path: Path) -> None:
    """Whoever runs for long looks at the file before asking."""
    api = Api(FLUX)
    old = api.catalogue(tmp_path)
    await old.models()
    api.now += HOUR + 1
    await api.catalogue(tmp_path).models()
    assert await old.model(FLUX.id) == FLUX
    assert api.asked == 2


ERRORS = [
    Unavailable("ConnectError"),
    AuthFailed(status=401),
    RateLimited(retry_after=5.0),
    ApiError(status=400),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_the_stale_list_is_used_while_the_api_is_away(
    tmp_path: Path, error: SubmitterError
) -> None:
    """An old list is better than none, also for a new process."""
    api = Api(FLUX)
    before = api.catalogue(tmp_path)
    await before.models()
    api.now += 100 * HOUR
    api.error = error
    for catalogue in (before, api.catalogue(tmp_path)):
        assert await catalogue.model(FLUX.id) == FLUX
        assert catalogue.failure is error
        assert catalogue.as_of == api.now - 100 * HOUR


async def test_a_failure_is_not_repeated_for_a_minute(tmp_path: Path) -> None:
    """Who submits many does not wait for an absent API each time; later it is asked again."""
    api = Api(FLUX)
    api.error = Unavailable("HTTP 503")
    catalogue = api.catalogue(tmp_path)
    assert [await catalogue.model(FLUX.id) for _ in range(3)] == [None] * 3
    assert api.asked == 1
    api.now += live.FAILURE_PAUSE_S
    api.error = None
    assert await catalogue.model(FLUX.id) == FLUX
    assert catalogue.failure is None


async def test_a_429_is_honoured(tmp_path: Path) -> None:
    """F27: the API is not asked again before the time that it named."""
    api = Api(FLUX)
    api.error = RateLimited(retry_after=600.0)
    catalogue = api.catalogue(tmp_path)
    await catalogue.models()
    api.now += 599.0
    await catalogue.models()
    assert api.asked == 1
    api.now += 1.0
    await catalogue.models()
    assert api.asked == 2


async def test_an_empty_list_is_a_failure(tmp_path: Path) -> None:
    """An answer without models does not drive out a list that has some."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    await catalogue.models()
    api.now += HOUR
    api.models = []
    assert await catalogue.model(FLUX.id) == FLUX
    assert "empty" in str(catalogue.failure)


async def test_a_slow_api_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the time limit the built-in models are all there is."""
    monkeypatch.setattr(live, "FETCH_TIMEOUT_S", 0.01)

    async def never() -> Sequence[Model]:
        await asyncio.Event().wait()
        raise AssertionError

    catalogue = Catalogue(never, folder=tmp_path)
    assert [model.id for model in await catalogue.models()] == builtin_models()
    assert "0.01 s" in str(catalogue.failure)


async def test_who_leaves_does_not_take_the_others_along(tmp_path: Path) -> None:
    """A cancelled caller leaves the list to be asked for by the next one."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    first = asyncio.create_task(catalogue.model(FLUX.id))
    second = asyncio.create_task(catalogue.model(FLUX.id))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == FLUX


async def test_a_clock_that_was_wrong(tmp_path: Path) -> None:
    """F6: a list from the future is asked for again."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    await catalogue.models()
    api.now -= 10 * HOUR
    assert await catalogue.model(FLUX.id) == FLUX
    assert (api.asked, catalogue.as_of) == (2, api.now)


async def test_all_models_are_sorted_and_built_in_ones_have_todays_price(tmp_path: Path) -> None:
    """The live list adds to the built-in models, and prices them where it can."""
    pro = Model("kwaivgi/kling-v2.1-i2v-pro", "Pro", base_price=0.45, schema={})
    unpriced = Model(KLING, "Kling")
    api = Api(WAN, pro, unpriced, FLUX)
    found = {model.id: model for model in await api.catalogue(tmp_path).models()}
    assert list(found) == sorted({WAN.id, FLUX.id, *builtin_models()})
    assert found[pro.id].base_price == 0.45
    assert found[pro.id].schema
    assert found[KLING].base_price == 0.25


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """F16: nobody else reads it, and no second file stays behind."""
    folder = tmp_path / "new" / "cache"
    await Api(FLUX).catalogue(folder).models()
    [file] = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_catalogue_without_a_disk(tmp_path: Path) -> None:
    """F20: where the folder is a file, the models are known all the same."""
    folder = tmp_path / "file"
    folder.write_text("")
    catalogue = Api(FLUX).catalogue(folder / "cache")
    assert await catalogue.model(FLUX.id) == FLUX


async def test_a_file_that_cannot_be_replaced(tmp_path: Path) -> None:
    """F20: where the place is taken, nothing fails and nothing is left lying about."""
    api = Api(FLUX)
    await api.catalogue(tmp_path).models()
    [file] = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    assert await api.catalogue(tmp_path).model(FLUX.id) == FLUX
    assert list(tmp_path.iterdir()) == [file]


async def test_an_older_file_does_not_go_over_what_is_known(tmp_path: Path) -> None:
    """F20: a list that could not be written is still newer than the file."""
    api = Api(FLUX)
    catalogue = api.catalogue(tmp_path)
    await catalogue.models()
    CatalogueFile("", tmp_path).write(CatalogueSnapshot({WAN.id: WAN}, api.now - 1))
    api.now += HOUR
    api.error = Unavailable("HTTP 503")
    assert await catalogue.model(FLUX.id) == FLUX


async def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    """Only a regular file is read."""
    api = Api(FLUX)
    await api.catalogue(tmp_path).models()
    [file] = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert await api.catalogue(tmp_path).model(FLUX.id) == FLUX


def file_of(folder: Path) -> Path:
    CatalogueFile("", folder).write(CatalogueSnapshot({FLUX.id: FLUX}, 5.0))
    [file] = folder.iterdir()
    return file


GOOD = {"format": "wavehook models 1", "as_of": 5, "models": [{"id": "acme/x"}]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'{"models": []}',
        json.dumps({**GOOD, "format": "other"}).encode(),
        json.dumps({**GOOD, "as_of": "now"}).encode(),
        json.dumps({**GOOD, "as_of": True}).encode(),
        json.dumps({**GOOD, "as_of": 10**400}).encode(),
        json.dumps({**GOOD, "models": {}}).encode(),
        json.dumps({**GOOD, "models": [5, {}, {"id": 5}, {"id": ""}]}).encode(),
    ],
    ids=range(12),
)
async def test_a_broken_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    """F11: what cannot be read is asked for again and replaced."""
    file_of(tmp_path).write_bytes(content)
    api = Api(FLUX)
    assert await api.catalogue(tmp_path).model(FLUX.id) == FLUX
    assert api.asked == 1
    assert await api.catalogue(tmp_path).model(FLUX.id) == FLUX
    assert api.asked == 1


def test_a_file_with_odd_fields_is_read(tmp_path: Path) -> None:
    """What is of another type reads as absent."""
    odd = {"id": "acme/x", "name": 5, "type": None, "base_price": "free", "schema": []}
    file_of(tmp_path).write_text(json.dumps({**GOOD, "models": [odd]}))
    assert CatalogueFile("", tmp_path).read() == CatalogueSnapshot(
        {"acme/x": Model("acme/x", "acme/x")}, 5.0
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["id", "name", "schema", "base_price"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(models=json_values | st.lists(json_values), as_of=json_values)
def test_any_file_is_read_or_ignored(
    tmp_path_factory: pytest.TempPathFactory, models: JSON, as_of: JSON
) -> None:
    """F11: no content of the file makes reading it fail."""
    folder = tmp_path_factory.mktemp("cache")
    file_of(folder).write_text(json.dumps({**GOOD, "models": models, "as_of": as_of}))
    found = CatalogueFile("", folder).read()
    assert found is None or found.models


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """A catalogue comes back as it went."""
    listing = CatalogueSnapshot(bounded([FLUX, WAN]), 12.5)
    cache = CatalogueFile("https://api.example.com", tmp_path)
    cache.write(listing)
    assert cache.read() == listing


def test_a_catalogue_is_bounded() -> None:
    """F17: absurd ids are left out, absurd texts cut, absurd schemas not kept."""
    deep: dict[str, JSON] = {}
    for _ in range(200_000):
        deep = {"a": deep}
    schemas: list[dict[str, JSON]] = [
        deep,
        {"x": "y" * MAX_SCHEMA_CHARS},
        {"x": float("nan")},
        {"x": {1, 2}},  # type: ignore[dict-item]
    ]
    models = [Model(f"a/{i}", "n" * 9999, "d" * 9999, schema=s) for i, s in enumerate(schemas)]
    ids = ["", "a\x1b[31m", "a" * 257]
    found = bounded([*models, *(Model(id, id) for id in ids)])
    assert list(found) == ["a/0", "a/1", "a/2", "a/3"]
    assert {model.schema for model in found.values()} == {None}
    assert len(found["a/0"].name + found["a/0"].description) < 5000
    while deep:
        deep = deep["a"]  # type: ignore[assignment]
    assert len(bounded(Model(str(i), "") for i in range(10_001))) == 10_000


def test_the_users_own_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a folder given, the file lies where the user's caches do."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "w")
    CatalogueFile("", None).write(CatalogueSnapshot({FLUX.id: FLUX}, 5.0))
    assert CatalogueFile("", None).read() is not None


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nobody knows the user's folders, none called `~` is made in this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/w"))
    CatalogueFile("", None).write(CatalogueSnapshot({FLUX.id: FLUX}, 5.0))
    assert CatalogueFile("", None).read() is None
    assert list(tmp_path.iterdir()) == []
