"""The composition root: settings become parts, or every reason why not."""

from __future__ import annotations

import hashlib
import hmac
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from starlette.applications import Starlette
from structlog.testing import capture_logs

from receiver import build
from receiver.config import Secret, Settings, read
from receiver.database import open_store, settings_ledger, settings_seal
from receiver.errors import SettingsError, Unverified
from receiver.event import Delivery
from receiver.sources.header_hmac import HeaderHmac
from receiver.sources.insecure import Insecure
from receiver.sources.standard import StandardWebhooks
from receiver.sources.wavespeed import WaveSpeedSource
from receiver.stores.memory import MemoryStore
from receiver.stores.postgres import PostgresStore
from submitter.ledger.base import Intent, Limits, State
from submitter.prediction import Prediction
from submitter.submit.context_token import Seal
from tests.support.asgi import Connection, Headers, request, scope, serve

SECRET = "whsec_c2VjcmV0"


def made(tmp_path: Path, text: str = "", **environ: str) -> build.ReceiverParts:
    (tmp_path / "wavehook.toml").write_text(text)
    reading = read(environ, cwd=tmp_path)
    return build.build(reading.settings, faults=reading.faults)


def faults(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        made(tmp_path, text, **environ)
    return "\n".join(caught.value.faults)


def delivery(body: bytes, secret: str = SECRET, source: str = "wavespeed") -> Delivery:
    now = time.time()
    signed = b"m1.%d.%s" % (now, body)
    digest = hmac.new(secret.removeprefix("whsec_").encode(), signed, hashlib.sha256).hexdigest()
    headers = (
        (b"webhook-id", b"m1"),
        (b"webhook-timestamp", b"%d" % now),
        (b"webhook-signature", f"v3,{digest}".encode()),
    )
    return Delivery(source, headers, body, received_at=now)


async def test_a_built_receiver_stores_a_signed_event_and_runs_its_handler(tmp_path: Path) -> None:
    """The parts belong together: what intake takes, the dispatcher hands to the handler."""
    log = tmp_path / "log.jsonl"
    parts = made(
        tmp_path,
        f'[handlers.log]\nuse = "log"\nto = "{log}"\n',
        WAVEHOOK_WAVESPEED_SECRETS=SECRET,
    )
    await parts.store.open()
    try:
        taken = await parts.intake.accept(delivery(b'{"id":"t","status":"completed"}'))
        assert taken.receipt.id == "wavespeed:t:completed"
        assert await parts.dispatcher.drain() == 1
    finally:
        await parts.dispatcher.stop(0)
        await parts.store.close()
    assert "wavespeed:t:completed" in log.read_text()
    assert b'outcome="done"' in parts.metrics.render(None, 0.0)
    assert (tmp_path / "wavehook.key").exists()


async def test_old_and_new_secret_both_pass(tmp_path: Path) -> None:
    """F39: several secrets are tried, and one that is not among them is refused."""
    parts = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS="whsec_old,whsec_new")
    trusted = parts.intake.sources["wavespeed"]
    for secret in ("whsec_old", "whsec_new"):
        sent = delivery(b'{"id":"t","status":"failed"}', secret)
        assert trusted.source.verify(sent, trusted.keys, time.time()).type == "prediction.failed"
    sent = delivery(b"{}", "whsec_other")
    with pytest.raises(Unverified):
        trusted.source.verify(sent, trusted.keys, time.time())


def test_every_kind_of_source_is_made(tmp_path: Path) -> None:
    """`use` chooses the dialect; WaveSpeedAI is there where a secret is."""
    parts = made(
        tmp_path,
        """
        [sources.second]
        use = "wavespeed"
        secrets = "whsec_second"
        [sources.std]
        use = "standard"
        secrets = ["whsec_c2VjcmV0"]
        [sources.gh]
        use = "header_hmac"
        secrets = "s"
        header = "x-sig"
        prefix = ""
        encoding = "base64"
        [sources.plain]
        use = "header_hmac"
        secrets = "s"
        """,
        WAVEHOOK_WAVESPEED_SECRETS=SECRET,
    )
    kinds = {name: type(each.source) for name, each in parts.intake.sources.items()}
    assert kinds == {
        "wavespeed": WaveSpeedSource,
        "second": WaveSpeedSource,
        "std": StandardWebhooks,
        "gh": HeaderHmac,
        "plain": HeaderHmac,
    }
    assert all(name == each.source.name for name, each in parts.intake.sources.items())


def test_another_source_needs_no_wavespeed_secret(tmp_path: Path) -> None:
    """A receiver for another sender alone starts, and has no WaveSpeedAI source."""
    parts = made(tmp_path, "[sources.gh]\nuse = 'header_hmac'\nsecrets = 's'\n")
    assert list(parts.intake.sources) == ["gh"]


def test_the_wavespeed_section_may_hold_the_secrets(tmp_path: Path) -> None:
    """The section's secrets count, and the environment's go before them."""
    text = f"[sources.wavespeed]\nuse = 'wavespeed'\nsecrets = ['{SECRET}', 'whsec_b']\n"
    assert len(made(tmp_path, text).intake.sources["wavespeed"].keys) == 2
    parts = made(tmp_path, text, WAVEHOOK_WAVESPEED_SECRETS="whsec_x")
    assert len(parts.intake.sources["wavespeed"].keys) == 1


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {}, "WAVEHOOK_WAVESPEED_SECRETS: it is not set, and without a secret"),
        ("[sources.wavespeed]\nuse = 'wavespeed'", {}, "it is not set, and without a secret"),
        (
            "",
            {"WAVEHOOK_WAVESPEED_SECRETS": "whsec_"},
            "WAVEHOOK_WAVESPEED_SECRETS = ***: expected",
        ),
        ("", {"WAVEHOOK_WAVESPEED_SECRETS": "abc"}, "expected it to start with whsec_"),
        (
            "[sources.s]\nuse = 'standard'\nsecrets = '#'",
            {},
            "sources.s.secrets = ***: expected whsec_",
        ),
        (
            "[sources.wavespeed]\nuse = 'wavespeed'\nsecrets = 'abc'",
            {},
            "sources.wavespeed.secrets",
        ),
        ("", {"WAVEHOOK_SEAL_KEYS": "short"}, "WAVEHOOK_SEAL_KEYS: key 1 is not a Fernet key"),
        ("", {"WAVEHOOK_DATABASE": "sqlite:///no/x.db"}, "expected the folder"),
        ("", {"WAVEHOOK_HANDLERS": "no_such_module_here"}, "no_such_module_here"),
        ("[handlers.x]\nuse = 'slck'", {}, "handlers.x.use: 'slck'"),
    ],
)
def test_what_cannot_work_is_refused(
    text: str, environ: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """F15: no secret, an empty or impossible one, an unknown handler: it does not start."""
    assert expected in faults(tmp_path, text, **environ)
    assert not (tmp_path / "wavehook.key").exists()


def test_every_fault_of_settings_and_parts_is_told_at_once(tmp_path: Path) -> None:
    """What the settings' reading found and what building finds come in one list (F16: masked)."""
    told = faults(
        tmp_path,
        "[handlers.x]\nuse = 'slck'\n[sources.s]\nuse = 'standard'\nsecrets = 'h1dden#'\n",
        WAVEHOOK_PORT="x",
        WAVEHOOK_WAVESPEED_SECRETS="h1dden",
        WAVEHOOK_SEAL_KEYS="h1dden",
        WAVEHOOK_DATABASE="sqlite:///no/x.db",
    )
    for part in ("WAVEHOOK_PORT", "handlers.x", "sources.s", "SEAL_KEYS", "DATABASE", "SPEED_SEC"):
        assert part in told
    assert "h1dden" not in told


def test_a_broken_secret_is_told_once(tmp_path: Path) -> None:
    """Where the settings' reading refused the secret already, its absence is no second fault."""
    assert faults(tmp_path, WAVEHOOK_WAVESPEED_SECRETS="").count("\n") == 0


def test_the_insecure_source_says_so_at_every_start(tmp_path: Path) -> None:
    """Nothing turns verification off silently."""
    with capture_logs() as lines:
        parts = made(tmp_path, "[sources.dev]\nuse = 'insecure'\n")
    assert isinstance(parts.intake.sources["dev"].source, Insecure)
    assert [(line["event"], line["source"], line["log_level"]) for line in lines] == [
        ("verification.omitted", "dev", "warning")
    ]


def test_a_start_that_fails_anyhow_asks_nobody(tmp_path: Path) -> None:
    """With another fault in the settings, no time goes into a fetch."""
    told = faults(
        tmp_path,
        WAVEHOOK_PORT="x",
        WAVESPEED_API_KEY="k",
        WAVESPEED_BASE_URL="http://127.0.0.1:9",
    )
    assert told == "WAVEHOOK_PORT = 'x': expected a whole number from 0 to 65535"


def test_seal_keys_come_from_settings_or_one_file(tmp_path: Path) -> None:
    """Keys of the settings make no file; else two starts share the file beside the database."""
    key = Fernet.generate_key().decode()
    given = Settings(seal_keys=(Secret(key),), directory=tmp_path)
    sealed = settings_seal(given).seal(None, model=None, now=0.0)
    assert Seal([key]).open(sealed, 0.0) is not None
    assert list(tmp_path.iterdir()) == []
    kept = Settings(directory=tmp_path)
    token = settings_seal(kept).seal({"a": 1}, model=None, now=0.0)
    opened = settings_seal(kept).open(token, 0.0)
    assert opened is not None
    assert opened.context == {"a": 1}


def test_a_worker_needs_no_secret(tmp_path: Path) -> None:
    """What only runs handlers has nothing to verify, and makes no key."""
    work = build.worker(Settings(directory=tmp_path))
    assert work.handlers == ()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match=r"handlers\.x"):
        build.worker(Settings(directory=tmp_path, handlers={"x": {}}))


def test_a_store_of_ones_own_takes_the_place_of_the_database(tmp_path: Path) -> None:
    """Tests and the demo bring their store; the settings' path is not looked at."""
    store = MemoryStore()
    nowhere = Settings(directory=tmp_path, database="sqlite:///no/x.db")
    assert build.worker(nowhere, store=store).store is store
    with pytest.raises(SettingsError, match="the folder"):
        open_store(nowhere)


async def test_a_webhook_finishes_its_submission(tmp_path: Path) -> None:
    """F28: the ledger lies in the same file, and learns of every result by the token's key."""
    parts = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    token = settings_seal(parts.settings).seal(None, model=None, now=time.time(), submission="k")
    async with parts.app.router.lifespan_context(parts.app):
        intent = Intent("k", "m", {}, digest="d", until=time.time() + 60)
        await parts.ledger.intend(intent, Limits(), time.time())
        sent = replace(delivery(b'{"id":"t","status":"completed"}'), token=token)
        assert (await parts.intake.accept(sent)).submission == "k"
    await parts.ledger.open()
    entry = (await parts.ledger.find(["k"]))["k"]
    await parts.ledger.close()

    assert (entry.state, entry.task_id, entry.delivered) == (State.FINISHED, "t", True)


async def test_a_token_of_another_task_is_seen_in_the_ledger(tmp_path: Path) -> None:
    """F33: swapped between two tasks of one model."""
    parts = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    token = settings_seal(parts.settings).seal(None, model=None, now=time.time(), submission="k")
    async with parts.app.router.lifespan_context(parts.app):
        now = time.time()
        await parts.ledger.intend(Intent("k", "m", {}, "d", now + 60), Limits(), now)
        await parts.ledger.accept("k", Prediction("t", "created"), now, expected_at=now)
        sent = replace(delivery(b'{"id":"other","status":"completed"}'), token=token)
        with pytest.raises(Unverified) as raised:
            await parts.intake.accept(sent)

    assert raised.value.reason == "token"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"WAVESPEED_API_KEY": "k"}, True),
        ({"WAVESPEED_API_KEY": "k", "WAVEHOOK_DISPATCH": "external"}, True),
        ({"WAVESPEED_API_KEY": "k", "WAVEHOOK_DISPATCH": "inline"}, False),
        ({"WAVESPEED_API_KEY": "k", "WAVEHOOK_RECONCILE": "off"}, False),
    ],
)
def test_when_the_receiver_reconciles(
    environ: dict[str, str], expected: bool, tmp_path: Path
) -> None:
    """F29, F41: where a key is set, and the process goes on between requests."""
    assert build.reconciles(read(environ, cwd=tmp_path).settings) is expected


async def test_the_api_is_there_where_its_token_is_set(tmp_path: Path) -> None:
    """F38: without the setting, nothing of it exists."""
    without = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    parts = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET, WAVEHOOK_ADMIN_TOKEN="t0ken")
    async with parts.app.router.lifespan_context(parts.app):
        await parts.intake.accept(delivery(b'{"id":"t","status":"completed"}'))
        statuses = [
            await status(each.app, headers)
            for each, headers in (
                (without, [(b"authorization", b"Bearer t0ken")]),
                (parts, []),
                (parts, [(b"authorization", b"Bearer t0ken")]),
            )
        ]

    assert statuses == [404, 401, 200]


async def test_overdue_submissions_are_on_the_metrics_page(tmp_path: Path) -> None:
    """F44: also where nothing reconciles."""
    parts = made(tmp_path, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    async with parts.app.router.lifespan_context(parts.app):
        await parts.ledger.intend(Intent("k", "m", {}, "d", 2.0), Limits(), 1.0)
        await parts.ledger.accept("k", Prediction("t", "created"), 1.0, expected_at=5.0)
        connection = Connection([b""])
        await serve(parts.app, connection, scope("/metrics", method="GET"))

    assert b"wavehook_reconcile_overdue 1.0" in connection.answer().body


async def status(app: Starlette, headers: Headers) -> int:
    """Of the one result that is there."""
    return (await request(app, "/api/predictions/t", headers, method="GET")).status


def test_a_broken_handler_stops_a_reconcile_by_hand(tmp_path: Path) -> None:
    """F15: dispatches are made by the same settings as in `serve`."""
    with pytest.raises(SettingsError, match=r"handlers\.x"):
        build.inbox_gateway(Settings(directory=tmp_path, handlers={"x": {}}), MemoryStore())


def test_postgres_takes_all_that_the_settings_say(tmp_path: Path) -> None:
    """The server's clock, schema and pooler; keys are asked for with all other faults."""
    pytest.importorskip("asyncpg")
    settings = Settings(
        directory=tmp_path,
        database="postgresql://me:hush@127.0.0.1:1/x",
        database_schema="hooks",
        database_pooler=True,
    )
    store = open_store(settings)
    assert isinstance(store, PostgresStore)
    assert (store.schema, store._server_clock, store._channel) == ("hooks", True, None)
    assert settings.database_label == "PostgreSQL at 127.0.0.1:1/x, schema hooks"
    assert "hush" not in repr(settings) + repr(store) + repr(settings_ledger(settings))
    assert build.worker(settings).handlers == ()
    with pytest.raises(SettingsError) as raised:
        build.build(settings)
    seal, secrets = sorted(raised.value.faults)
    assert seal.startswith("WAVEHOOK_SEAL_KEYS: it is not set, and on PostgreSQL no key file")
    assert "`wavehook secret --seal-key` makes one" in seal
    assert secrets.startswith("WAVEHOOK_WAVESPEED_SECRETS")
    assert list(tmp_path.iterdir()) == []


def test_postgres_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault names the extra, and is told with the others."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(SettingsError) as raised:
        build.worker(Settings(database="postgresql://127.0.0.1:1/x"), faults=["another"])
    assert raised.value.faults == (
        "another",
        "WAVEHOOK_DATABASE: postgresql:// needs asyncpg; install wavehook[postgres]",
    )
