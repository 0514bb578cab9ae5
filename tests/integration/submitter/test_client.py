"""The client as a whole: how it is made, entered and left."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from submitter.client import WaveSpeed
from submitter.errors import BadSettings, LedgerUnavailable
from submitter.ledger.base import Ledger, Limits, State
from submitter.ledger.memory import MemoryLedger
from submitter.ledger.sqlite import SQLiteLedger
from submitter.settings import SubmitSettings
from submitter.submit.context_token import Seal, load_or_create_key
from tests.support.cuttable_transport import KLING, Wire, answering
from tests.support.submits import INPUT, World, refusing, surroundings

pytestmark = pytest.mark.anyio

PUBLIC = "https://hooks.example.com"
CREATED = {"code": 200, "data": {"id": "t", "status": "created"}}


@pytest.fixture
async def world(ledger: Ledger) -> AsyncIterator[World]:
    async with surroundings(ledger) as world:
        yield world


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_with_only_a_key(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`WaveSpeed()` works with the API key alone; its ledger is in the working directory."""
    monkeypatch.setenv("WAVESPEED_API_KEY", "key\n")
    monkeypatch.setenv("WAVESPEED_BASE_URL", world.sim.url)
    async with WaveSpeed() as wave:
        submission = await wave.submit(KLING, INPUT, key="k")
    assert {path.name.partition(".db")[0] for path in folder.iterdir()} == {"wavehook"}
    assert stat.S_IMODE((folder / "wavehook.db").stat().st_mode) == 0o600
    async with SQLiteOpened(folder / "wavehook.db") as ledger:
        [entry] = (await ledger.find(["k"])).values()
    assert (entry.state, entry.task_id) == (State.ACCEPTED, submission.task_id)


class SQLiteOpened:
    """A ledger for as long as a block runs."""

    def __init__(self, path: Path) -> None:
        self.ledger = SQLiteLedger(path)

    async def __aenter__(self) -> Ledger:
        await self.ledger.open()
        return self.ledger

    async def __aexit__(self, *_: object) -> None:
        await self.ledger.close()


async def test_all_from_the_environment(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting of the submitter is taken up."""
    key = Fernet.generate_key().decode()
    for name, value in {
        "WAVESPEED_API_KEY": "key",
        "WAVESPEED_BASE_URL": world.sim.url,
        "WAVEHOOK_PUBLIC_URL": PUBLIC,
        "WAVEHOOK_SEAL_KEYS": f"{key}, {Fernet.generate_key().decode()}",
        "WAVEHOOK_DATABASE": f"sqlite:///{folder / 'other.db'}",
        "WAVEHOOK_RATE": "10",
        "WAVEHOOK_IN_FLIGHT": "20",
        "WAVEHOOK_ADMIN_TOKEN": "token",
        "WAVEHOOK_OVERDUE": "2m",
        "WAVEHOOK_SUBMIT_TIMEOUT": "20s",
    }.items():
        monkeypatch.setenv(name, value)
    wire = Wire(answering(KLING, refusing(200, CREATED)))
    async with WaveSpeed(transport=wire) as wave:
        await wave.submit(KLING, INPUT, context=1, key="k")
        entry = (await wave.find(["k"]))["k"]
        assert wave._feed is not None
        assert wave._sender._limiter._limits == Limits(10, 20)
    assert entry.until == pytest.approx(entry.sent_at + 20 + 2)
    [request] = [each for each in wire.sent if each.method == "POST"]
    token = request.url.params["webhook"].rpartition("/")[2]
    opened = Seal([key]).open(token, entry.sent_at + 1)
    assert opened is not None
    assert opened.submission == "k"
    assert [path.name for path in folder.iterdir() if path.suffix in (".db", ".key")] == [
        "other.db"
    ]


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_receivers_key_file(world: World, folder: Path, is_there: bool) -> None:
    """The receiver's key is used where it is; one that only the submitter knew is not made."""
    keys = [load_or_create_key(folder / "wavehook.key")] if is_there else []
    world.wire.meddle = answering(KLING, refusing(200, CREATED))
    async with world.client(webhook_url=PUBLIC) as wave:
        await wave.submit(KLING, INPUT, key="k")
    [request] = world.wire.sent
    webhook = request.url.params["webhook"]
    assert webhook.startswith(f"{PUBLIC}/webhooks/wavespeed")
    assert (webhook == f"{PUBLIC}/webhooks/wavespeed") is not is_there
    assert len(list(folder.iterdir())) == len(keys)


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "WAVESPEED_API_KEY"),
        ({"api_key": "a b"}, "WAVESPEED_API_KEY"),
        ({"api_key": "k", "base_url": "http://example.com"}, "WAVESPEED_BASE_URL"),
        ({"api_key": "k", "webhook_url": "http://example.com"}, "WAVEHOOK_PUBLIC_URL"),
        ({"api_key": "k", "webhook_url": "https://example.com/?a=b"}, "WAVEHOOK_PUBLIC_URL"),
    ],
)
def test_bad_settings(folder: Path, given: dict[str, Any], setting: str) -> None:
    """F15: what cannot work is refused when the client is made, with the setting's name."""
    with pytest.raises(BadSettings) as caught:
        WaveSpeed(**given)
    assert caught.value.setting == setting
    assert list(folder.iterdir()) == []


async def test_a_context_before_the_receiver_ever_started(folder: Path) -> None:
    """F15: without a key a context is refused, and the error says what makes one."""
    async with WaveSpeed("k", webhook_url=PUBLIC) as wave:
        with pytest.raises(BadSettings, match="start `wavehook serve` once"):
            await wave.submit(KLING, INPUT, context=1)
    assert not (folder / "wavehook.key").exists()


def test_a_key_file_that_cannot_be_read(folder: Path) -> None:
    """F15: what stands in the place of the key file is named."""
    (folder / "wavehook.key").mkdir()
    with pytest.raises(BadSettings, match=r"wavehook\.key cannot be read"):
        WaveSpeed("k", webhook_url=PUBLIC)


def test_a_wrong_key_file(folder: Path) -> None:
    """F15: a key file that holds no key is named."""
    (folder / "wavehook.key").write_text("no key")
    with pytest.raises(BadSettings, match=r"wavehook\.key has no valid Fernet key"):
        WaveSpeed("k", webhook_url=PUBLIC)


async def test_a_folder_that_is_not_there(folder: Path) -> None:
    """A database that cannot be made is told when the client is entered."""
    settings = SubmitSettings(database=f"sqlite:///{folder}/no/such/folder.db")
    with pytest.raises(LedgerUnavailable, match=r"folder\.db"):
        async with WaveSpeed("k", settings=settings):
            pass


async def test_a_submit_on_postgres_needs_the_receivers_keys(world: World) -> None:
    """No token, no webhook: without keys nothing is sent, and all that seals nothing works."""
    given = SubmitSettings(database="postgresql://127.0.0.1:1/x", overdue=0.6)
    async with world.client(webhook_url=PUBLIC, settings=given) as wave:
        for context in (None, 7):
            with pytest.raises(BadSettings, match="`wavehook secret --seal-key`") as raised:
                await wave.submit(KLING, INPUT, context=context)
            assert raised.value.setting == "WAVEHOOK_SEAL_KEYS"
        assert world.posts == 0
        assert (await wave.run(KLING, INPUT, webhook=False)).succeeded


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"database": "postgresql://me:hush@host:port/x"}, "WAVEHOOK_DATABASE"),
        ({"database": "postgresql://me:hush/x"}, "WAVEHOOK_DATABASE"),
        ({"database": "mysql://me:hush@host/x"}, "WAVEHOOK_DATABASE"),
        (
            {"database": "postgresql://me:hush@host/x", "database_schema": "no-such"},
            "WAVEHOOK_DATABASE_SCHEMA",
        ),
    ],
)
def test_a_database_that_cannot_be(given: dict[str, Any], setting: str) -> None:
    """F16: as other settings; and nothing of an address is repeated."""
    with pytest.raises(BadSettings) as raised:
        WaveSpeed("key", settings=SubmitSettings(**given))
    assert raised.value.setting == setting
    assert "hush" not in str(raised.value)


async def test_outside_of_its_context_it_says_how_to_use_it(world: World) -> None:
    """Before and after `async with` nothing is sent."""
    wave = world.client()
    for _ in range(2):
        for call in (
            lambda: wave.submit(KLING, INPUT),
            lambda: wave.run(KLING, INPUT),
            lambda: wave.wait("k"),
            lambda: wave.result("t"),
            lambda: anext(wave.stream()),
        ):
            with pytest.raises(RuntimeError, match="async with"):
                await call()
        async with wave:
            pass
    await wave.__aexit__(None, None, None)
    assert world.wire.sent == []


async def test_it_can_be_entered_again(world: World) -> None:
    """A closed client opens again, with its ledger."""
    wave = world.client()
    for number in range(2):
        async with wave:
            assert (await wave.run(KLING, INPUT, key=f"k{number}")).succeeded
    assert world.posts == 2


async def test_a_given_ledger_is_not_closed(world: World) -> None:
    """Whoever made it goes on using it."""
    async with world.client() as wave:
        await wave.submit(KLING, INPUT, key="k")
    assert await world.state("k") is State.ACCEPTED


async def test_its_own_ledger_is_closed(world: World, folder: Path) -> None:
    """F45: nothing is left open: no task, no thread, no file."""
    before = asyncio.all_tasks()
    async with world.client(ledger=None) as wave:
        await wave.submit(KLING, INPUT)
        ledger = wave._ledger
    with pytest.raises(LedgerUnavailable):
        await ledger.find(["k"])
    assert asyncio.all_tasks() == before


async def test_the_client_does_all_that_calls_do(world: World) -> None:
    """The whole API is there: history, price, balance, secret, delete."""
    async with world.client() as wave:
        done = await wave.run(KLING, INPUT)
        assert [each.id async for each in wave.history(model=KLING)] == [done.id]
        assert (await wave.price(KLING, INPUT)).discounted == 0.25
        assert await wave.balance() == 99.75
        assert await wave.webhook_secret() == world.sim.secret
        assert (await wave.catalogue.model(KLING)) is not None
        await wave.delete(done.id)
        assert [each.id async for each in wave.history()] == []


async def test_a_failure_inside_leaves_nothing_open(world: World) -> None:
    """An error in the block closes the client as well."""
    wave = world.client(ledger=MemoryLedger())

    async def fail() -> None:
        async with wave:
            await wave.submit(KLING, INPUT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with pytest.raises(RuntimeError, match="async with"):
        await wave.submit(KLING, INPUT)
