"""Settings: where they come from, which goes first, and how every fault is told at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import config
from receiver.config import REFERENCE, Settings, load, read
from receiver.errors import SettingsError

SECRET = "whsec_" + "k3y" * 8


def faults(environ: Mapping[str, str], cwd: Path, **overrides: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, overrides=overrides, cwd=cwd)
    return caught.value.faults


def fault(environ: Mapping[str, str], cwd: Path, **overrides: object) -> str:
    found = faults(environ, cwd, **overrides)
    assert len(found) == 1, found
    return found[0]


def written(cwd: Path, text: str) -> Path:
    (cwd / "wavehook.toml").write_text(text)
    return cwd


def test_nothing_set_gives_the_documented_defaults(tmp_path: Path) -> None:
    """Without any setting, everything has the default of the reference."""
    found = load({}, cwd=tmp_path)
    assert found == Settings(directory=tmp_path)
    assert (found.host, found.port, found.dispatch) == ("127.0.0.1", 8080, "background")
    assert found.max_body == 1024 * 1024
    assert found.database_path == tmp_path / "wavehook.db"
    assert found.config is None


def test_reference_names_every_setting_of_the_model(tmp_path: Path) -> None:
    """The one table holds each setting once, with a meaning and a default."""
    fields = [row.field for row in REFERENCE]
    assert sorted([*fields, "sources", "handlers", "directory", "platform"]) == sorted(
        field.name for field in dataclasses.fields(Settings)
    )
    assert len({row.name for row in REFERENCE}) == len(REFERENCE)
    assert all(row.meaning and row.expected and row.default for row in REFERENCE)


@pytest.mark.parametrize(
    "row", [r for r in REFERENCE if "_" not in r.default], ids=lambda r: r.name
)
def test_a_default_in_the_reference_is_the_one_in_force(row: object, tmp_path: Path) -> None:
    """A default that reads as a value gives, when it is set, the settings without it."""
    assert hasattr(row, "name")
    reading = read({row.name: row.default}, cwd=tmp_path)  # type: ignore[attr-defined]
    if " " not in row.default and row.default != "-":  # type: ignore[attr-defined]
        assert reading.faults == ()
        assert reading.settings == Settings(directory=tmp_path)


ROUND = [
    ("WAVESPEED_API_KEY", "key", "api_key", None),
    ("WAVESPEED_BASE_URL", "http://127.0.0.1:9/", "base_url", "http://127.0.0.1:9"),
    ("WAVEHOOK_DATABASE", "sqlite:////var/w.db", "database", "sqlite:////var/w.db"),
    ("WAVEHOOK_DATABASE", "postgres://h/d", "database", "postgres://h/d"),
    ("WAVEHOOK_DATABASE_SCHEMA", "hooks_2", "database_schema", "hooks_2"),
    ("WAVEHOOK_DATABASE_POOLER", "ON", "database_pooler", True),
    ("WAVEHOOK_PUBLIC_URL", "https://h.example/x/", "public_url", "https://h.example/x"),
    ("WAVEHOOK_DISPATCH", "Inline", "dispatch", "inline"),
    ("WAVEHOOK_MAX_BODY", "64 KiB", "max_body", 65536),
    ("WAVEHOOK_MAX_BODY", "2000", "max_body", 2000),
    ("WAVEHOOK_HOST", " ::1 ", "host", "::1"),
    ("WAVEHOOK_PORT", "0", "port", 0),
    ("WAVEHOOK_HANDLERS", "a.b, c", "modules", ("a.b", "c")),
    ("WAVEHOOK_BODY_DEADLINE", "500ms", "body_deadline", 0.5),
    ("WAVEHOOK_INLINE_DEADLINE", "2", "inline_deadline", 2.0),
    ("WAVEHOOK_GRACE", "0", "grace", 0.0),
    ("WAVEHOOK_LEASE", "5m", "lease", 300.0),
    ("WAVEHOOK_RETENTION_DAYS", "7", "retention_days", 7),
    ("WAVEHOOK_LOG_LEVEL", "DEBUG", "log_level", "debug"),
    ("WAVEHOOK_RATE", "60", "rate", 60),
    ("WAVEHOOK_IN_FLIGHT", "3", "in_flight", 3),
    ("WAVEHOOK_OVERDUE", "90s", "overdue", 90.0),
    ("WAVEHOOK_SUBMIT_TIMEOUT", "2m", "submit_timeout", 120.0),
    ("WAVEHOOK_RECONCILE", "OFF", "reconcile", "off"),
]


@pytest.mark.parametrize(("name", "value", "field", "expected"), ROUND)
def test_a_setting_reads_alike_from_flag_environment_and_file(
    name: str, value: str, field: str, expected: object, tmp_path: Path
) -> None:
    """One spelling means one value, wherever it stands."""
    section, _, key = name.lower().partition("_")
    by_environment = load({name: value}, cwd=tmp_path)
    by_flag = load({}, overrides={name: value}, cwd=tmp_path)
    by_file = load({}, cwd=written(tmp_path, f'[{section}]\n{key} = "{value}"\n'))
    assert by_environment == by_flag == dataclasses.replace(by_file, config=None)
    if expected is not None:
        assert getattr(by_environment, field) == expected


def test_numbers_and_lists_may_be_written_as_such_in_the_file(tmp_path: Path) -> None:
    """TOML has numbers and lists of its own, and they are taken."""
    found = load(
        {},
        cwd=written(
            tmp_path,
            "[wavehook]\nport = 1\nlease = 2.5\nmax_body = 10\ngrace = 3\n"
            f'handlers = ["a", "b"]\nwavespeed_secrets = ["{SECRET}", "whsec_with,comma"]\n',
        ),
    )
    assert (found.port, found.lease, found.max_body, found.grace) == (1, 2.5, 10, 3.0)
    assert found.modules == ("a", "b")
    assert [s.get_secret_value() for s in found.wavespeed_secrets] == [SECRET, "whsec_with,comma"]


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    """The nearer to the command, the stronger; a flag that is not given says nothing."""
    written(tmp_path, '[wavehook]\nport = 1\nhost = "a"\ndispatch = "external"\n')
    environ = {"WAVEHOOK_PORT": "2", "WAVEHOOK_HOST": "b"}
    found = load(environ, overrides={"WAVEHOOK_PORT": "3", "WAVEHOOK_LEASE": None}, cwd=tmp_path)
    assert (found.port, found.host, found.dispatch, found.lease) == (3, "b", "external", 60.0)
    assert found.config == tmp_path / "wavehook.toml"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WAVEHOOK_PORT", "abc", "WAVEHOOK_PORT = 'abc': expected a whole number from 0 to 65535"),
        ("WAVEHOOK_PORT", "65536", "WAVEHOOK_PORT = '65536': expected a whole number"),
        ("WAVEHOOK_PORT", "-1", "expected a whole number"),
        ("WAVEHOOK_PORT", "", "WAVEHOOK_PORT = '': expected a whole number"),
        ("WAVEHOOK_HOST", "", "WAVEHOOK_HOST = '': it is empty; give a value, or remove"),
        ("WAVEHOOK_HOST", "a\nb", "line breaks"),
        ("WAVEHOOK_DISPATCH", "later", "expected background, inline or external"),
        ("WAVEHOOK_LOG_LEVEL", "loud", "expected debug, info, warning or error"),
        ("WAVEHOOK_MAX_BODY", "0", "expected a number of bytes"),
        ("WAVEHOOK_MAX_BODY", "1 GiB", "expected a number of bytes"),
        ("WAVEHOOK_MAX_BODY", "ten", "expected a number of bytes"),
        ("WAVEHOOK_LEASE", "1 fortnight", "expected a time of at least 1s"),
        ("WAVEHOOK_LEASE", "0.5", "expected a time of at least 1s"),
        ("WAVEHOOK_GRACE", "-1", "expected a time"),
        ("WAVEHOOK_GRACE", "nan", "expected a time"),
        ("WAVEHOOK_GRACE", "999999999999", "expected a time"),
        ("WAVEHOOK_RETENTION_DAYS", "1.5", "expected a whole number of days"),
        (
            "WAVEHOOK_RATE",
            "0",
            "expected a whole number from 1 to 1000000; leave it out for no limit",
        ),
        ("WAVEHOOK_IN_FLIGHT", "-3", "expected a whole number from 1"),
        ("WAVEHOOK_OVERDUE", "0", "expected a time of more than 0"),
        ("WAVEHOOK_SUBMIT_TIMEOUT", "soon", "expected a time of more than 0"),
        ("WAVEHOOK_RECONCILE", "yes", "expected on or off"),
        ("WAVEHOOK_HANDLERS", "a-b", "expected dotted names of Python modules"),
        ("WAVEHOOK_HANDLERS", "a,,b", "it is empty"),
        ("WAVEHOOK_PUBLIC_URL", "h.example", "expected an http or https URL"),
        ("WAVEHOOK_PUBLIC_URL", "https://h.example/?x=1", "expected an http or https URL"),
        ("WAVEHOOK_PUBLIC_URL", "https://h:99999/", "expected an http or https URL"),
        ("WAVEHOOK_PUBLIC_URL", "https://", "expected an http or https URL"),
        ("WAVEHOOK_PUBLIC_URL", "https://[::1/", "expected an http or https URL"),
        ("WAVESPEED_BASE_URL", "ftp://h", "expected an http or https URL"),
        ("WAVEHOOK_DATABASE", "sqlite://", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "sqlite:///", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "sqlite:////", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "sqlite:///folder/", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "sqlite:///a.db?mode=ro", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "wavehook.db", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "memory://", "expected sqlite:///PATH"),
        ("WAVEHOOK_DATABASE", "postgresql+asyncpg://h/d", "or postgresql://USER"),
        ("WAVEHOOK_DATABASE", "postgresql://h:0/d", "expected a port from 1 to 65535"),
        ("WAVEHOOK_DATABASE", "postgresql://a:b@h,[::1]:99999/d", "a port from 1 to 65535"),
        ("WAVEHOOK_DATABASE", "postgresql://a:b@h:port/d", "%-codes for characters such as @"),
        ("WAVEHOOK_DATABASE_SCHEMA", "Wavehook", "expected lower-case letters"),
        ("WAVEHOOK_DATABASE_SCHEMA", "pg_wavehook", "not beginning with pg_"),
        ("WAVEHOOK_DATABASE_SCHEMA", "w" * 49, "at most 48"),
        ("WAVEHOOK_DATABASE_POOLER", "pgbouncer", "expected on or off"),
        ("WAVEHOOK_CONFIG", "missing.toml", "WAVEHOOK_CONFIG = 'missing.toml': expected a TOML"),
        ("WAVEHOOK_CONFIG", "", "expected a TOML file"),
        ("WAVEHOOK_CONFIG", "a\0b", "expected a TOML file"),
        ("WAVEHOOK_WAVESPEED_SECRETS", "", "***: it is empty"),
        ("WAVEHOOK_WAVESPEED_SECRETS", " , ", "***: it is empty"),
        ("WAVEHOOK_ADMIN_TOKEN", "", "***: it is empty"),
        ("WAVESPEED_API_KEY", " ", "***: it is empty"),
        ("WAVEHOOK_SEAL_KEYS", "a,", "***: it is empty"),
    ],
)
def test_a_fault_names_the_setting_the_value_and_what_was_expected(
    name: str, value: str, expected: str, tmp_path: Path
) -> None:
    """F15: a value that cannot work is told with its name; an empty secret is one of them."""
    told = fault({name: value}, tmp_path)
    assert told.startswith(name)
    assert expected in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = 1", "port: expected it in a section, such as [wavehook]"),
        ("[wavehook]\nport = true", "wavehook.port = True: expected a whole number"),
        ("[wavehook]\nport = [1]", "wavehook.port = [1]: expected a whole number"),
        (f"[wavehook]\nport = 0x{'f' * 5000}", "a number of thousands of digits"),
        (f"[wavehook]\nlease = 0x{'f' * 5000}", "a number of thousands of digits"),
        ("[wavehook]\nlease = nan", "wavehook.lease = nan: expected a time"),
        ("[wavehook]\nlease = 1979-05-27", "wavehook.lease = datetime.date"),
        ("[wavehook]\nhost = 3", "wavehook.host = 3: expected an address"),
        ("[wavehook]\nhandlers = []", "wavehook.handlers = []: expected dotted names"),
        ("[wavehook]\nhandlers = [1]", "wavehook.handlers = [1]: expected dotted names"),
        ("[wavehook]\nhandlers = 1", "wavehook.handlers = 1: expected dotted names"),
        ("[wavehook]\nwavespeed_secrets = 7", "wavehook.wavespeed_secrets = ***: expected"),
        ("[wavehook]\nprot = 1", "wavehook.prot: there is no such key; did you mean port?"),
        ("[wavehook]\nconfig = 'x'", "wavehook.config: there is no such key"),
        ("[wavehook]\n'a\\nb' = 1", "wavehook.a\\nb: there is no such key"),
        ("[handler.x]\nuse = 'log'", "handler: there is no such section; did you mean handlers?"),
        ("[[sources]]\nuse = 'log'", "sources: expected a section, not a value"),
        ("[sources]\nx = 1", "sources.x: expected a section [sources.NAME], not a value"),
        ("[handlers]\nx = 1", "handlers.x: expected a section [handlers.NAME], not a value"),
        ("= 1", "wavehook.toml: expected a TOML file (Invalid statement (at line 1, column 1))"),
        ("a = " + "[" * 5000, "expected a TOML file of at most 16 nested levels"),
        (
            "a = " + "[" * 30 + "]" * 30,
            "expected a TOML file of at most 16 nested levels",
        ),
        ("[sources.x]\nuse = 'env:NO'", "sources.x.use = 'env:NO': expected this environment"),
        ("[sources.Big]\nuse = 'standard'", "sources.Big: expected a name of 1 to 32 characters"),
        ("[sources.x]", "sources.x.use: it is missing; expected wavespeed, standard"),
        ("[sources.x]\nuse = 'standart'", "sources.x.use = 'standart': expected wavespeed"),
        ("[sources.x]\nuse = 'standard'", "sources.x: expected secrets"),
        ("[sources.x]\nuse = 'wavespeed'", "sources.x: expected secrets"),
        ("[sources.x]\nuse = 'standard'\nsecrets = ''", "sources.x.secrets = ***: it is empty"),
        ("[sources.x]\nuse = 'standard'\nsecrets = []", "sources.x.secrets = ***: expected one"),
        ("[sources.x]\nuse = 'standard'\nsecret = 'a'", "no such key; did you mean secrets?"),
        ("[sources.x]\nuse = 'insecure'\nsecrets = 'a'", "`insecure` verifies nothing"),
        ("[sources.x]\nuse = 'standard'\nsecrets = 'a'\nheader = 'h'", "belong to use ="),
        ("[sources.x]\nuse = 'header_hmac'\nsecrets = 'a'\nheader = 'h h'", "header = 'h h': exp"),
        ("[sources.x]\nuse = 'header_hmac'\nsecrets = 'a'\nprefix = 3", "prefix = 3: expected"),
        (
            "[sources.x]\nuse = 'header_hmac'\nsecrets = 'a'\nencoding = 'x'",
            "expected hex or base64",
        ),
        ("[sources.wavespeed]\nuse = 'insecure'", 'the name belongs to use = "wavespeed"'),
    ],
)
def test_a_fault_in_the_file_names_section_and_key(
    text: str, expected: str, tmp_path: Path
) -> None:
    """F15: the file is held to the same rules, an unknown source or key included."""
    assert any(expected in told for told in faults({}, written(tmp_path, text)))


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    """Bytes that are no text are a fault, not a traceback."""
    (tmp_path / "wavehook.toml").write_bytes(b"\xff\xfe")
    assert fault({}, tmp_path) == "wavehook.toml: expected a TOML file in UTF-8"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """A person corrects everything in one go: flag, environment, file and sections."""
    written(tmp_path, "[wavehook]\nlease = 0\ntypo = 1\n[sources.x]\nuse = 'no'\n[odd]\n")
    environ = {"WAVEHOOK_DISPATCH": "x", "WAVEHOOK_DATABSE": "y"}
    told = "\n".join(faults(environ, tmp_path, WAVEHOOK_PORT="z"))
    for part in (
        "--port = 'z'",
        "WAVEHOOK_DISPATCH = 'x'",
        "WAVEHOOK_DATABSE: there is no such setting; did you mean WAVEHOOK_DATABASE?",
        "wavehook.lease = 0",
        "wavehook.typo",
        "sources.x.use = 'no'",
        "odd: there is no such section",
    ):
        assert part in told


def test_secrets_are_in_no_repr_and_no_error(tmp_path: Path) -> None:
    """F16: neither the settings nor a fault shows a secret, wherever it was put."""
    environ = {
        "WAVESPEED_API_KEY": SECRET,
        "WAVEHOOK_WAVESPEED_SECRETS": f"{SECRET},{SECRET}",
        "WAVEHOOK_SEAL_KEYS": SECRET,
        "WAVEHOOK_ADMIN_TOKEN": SECRET,
        "GH": SECRET,
    }
    written(
        tmp_path,
        f"[sources.gh]\nuse = 'header_hmac'\nsecrets = 'env:GH'\n[handlers.a]\nurl = '{SECRET}'\n",
    )
    found = load(environ, cwd=tmp_path)
    assert SECRET not in repr(found) + str(found) + repr(found.sources)
    assert found.handlers["a"]["url"] == SECRET

    broken = dict.fromkeys(environ, f"{SECRET}\n{SECRET}") | {
        "WAVEHOOK_WAVESPEED_SECRET": SECRET,
        "WAVEHOOK_DATABASE": f"postgresql://user:{SECRET}@h/d",
        "WAVEHOOK_PUBLIC_URL": f"https://user:{SECRET}@h/d",
        "WAVEHOOK_SEAL_KEYS": f"{SECRET},env:NOT_THERE",
    }
    told = "\n".join(faults(broken, tmp_path))
    assert SECRET not in told
    assert "env:NOT_THERE" in told
    assert SECRET not in repr(read(broken, cwd=tmp_path))


def test_references_put_secrets_from_elsewhere_in(tmp_path: Path) -> None:
    """`env:` and `file:` stand for a value; those of handlers are read by who makes them."""
    (tmp_path / "token").write_text("t0ken\n")
    written(
        tmp_path,
        """
        [wavehook]
        admin_token = "file:token"
        wavespeed_secrets = "env:ONE, env:TWO"
        [sources.gh]
        use = "header_hmac"
        secrets = ["env:COMMA"]
        [handlers.a]
        url = "env:WAVEHOOK_SLACK"
        """,
    )
    environ = {"ONE": "1", "TWO": "2,3", "COMMA": "a,b", "WAVEHOOK_SLACK": "env:ONE"}
    found = load(environ, cwd=tmp_path)
    assert found.admin_token is not None
    assert found.admin_token.get_secret_value() == "t0ken"
    assert [s.get_secret_value() for s in found.wavespeed_secrets] == ["1", "2", "3"]
    assert [s.get_secret_value() for s in found.sources["gh"].secrets] == ["a,b"]
    assert found.handlers["a"] == {"url": "env:WAVEHOOK_SLACK"}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("env:MISSING", "expected this environment variable to be set"),
        ("env:EMPTY", "it is empty"),
        ("file:missing", "expected a file that can be read (No such file or directory)"),
        ("file:.", "expected a file that can be read (Is a directory)"),
        ("file:binary", "expected a file of UTF-8 text"),
        ("file:large", "expected a file of at most 65536 bytes"),
        ("file:a\0b", "expected a file of UTF-8 text"),
        ("file:", "expected a path after file:"),
        ("env:WAVEHOOK_NO", "expected this environment variable to be set"),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_fault(
    reference: str, expected: str, tmp_path: Path
) -> None:
    """A missing secret stops the start, and the fault shows the reference."""
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"a" * 70000)
    environ = {"EMPTY": "", "WAVEHOOK_ADMIN_TOKEN": reference}
    told = fault(environ, tmp_path)
    assert told.startswith(f"WAVEHOOK_ADMIN_TOKEN = {reference!r}: ")
    assert expected in told


def test_a_url_with_file_scheme_is_no_reference(tmp_path: Path) -> None:
    """`file://…` is a URL, which no setting here expects."""
    assert "expected an http" in fault({"WAVEHOOK_PUBLIC_URL": "file:///etc/passwd"}, tmp_path)


def test_a_kubernetes_service_called_wavehook_does_no_harm(tmp_path: Path) -> None:
    """What Kubernetes injects for a service of this name is not taken for settings."""
    environ = {
        "WAVEHOOK_SERVICE_HOST": "10.0.0.1",
        "WAVEHOOK_SERVICE_PORT": "80",
        "WAVEHOOK_SERVICE_PORT_HTTP": "80",
        "WAVEHOOK_PORT": "tcp://10.0.0.1:80",
        "WAVEHOOK_PORT_80_TCP": "tcp://10.0.0.1:80",
        "WAVEHOOK_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ, cwd=tmp_path) == Settings(directory=tmp_path)


def test_other_programs_variables_are_left_alone(tmp_path: Path) -> None:
    """The vendor's own clients may have variables that are not ours."""
    assert load({"WAVESPEED_TIMEOUT": "3", "PATH": "/bin"}, cwd=tmp_path).port == 8080


def test_sources_keep_what_is_theirs(tmp_path: Path) -> None:
    """A header source has its header, prefix (also an empty one) and encoding."""
    written(
        tmp_path,
        """
        [sources.gh]
        use = "header_hmac"
        secrets = "a, b"
        header = "X-Sig"
        prefix = ""
        encoding = "base64"
        [sources.dev]
        use = "insecure"
        """,
    )
    found = load({}, cwd=tmp_path).sources
    assert (found["gh"].header, found["gh"].prefix, found["gh"].encoding) == ("X-Sig", "", "base64")
    assert len(found["gh"].secrets) == 2
    assert found["dev"].use == "insecure"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """The settings are one frozen object."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load({}, cwd=tmp_path).port = 1  # type: ignore[misc]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


NAMES = st.sampled_from([row.name for row in REFERENCE]) | st.text().map("WAVEHOOK_{}".format)
TEXTS = st.text() | st.sampled_from(
    [
        "env:A",
        "file:x",
        "file:",
        "env:",
        "1",
        "1e9",
        "https://[",
        "sqlite:///a",
        "\ud800",
        "tcp://x",
    ]
)
TOML = st.text() | st.sampled_from(
    [
        "[wavehook]\n{}",
        "[sources.x]\nuse='standard'\n{}",
        "[sources.{}]\n",
        "[handlers.x]\n{}",
        "{}=1",
        "[wavehook]\nport={}",
        "[wavehook]\nlease={}",
        "[wavehook]\nwavespeed_secrets=[{}]",
        "[sources.x]\nsecrets={}",
    ]
).flatmap(
    lambda frame: (st.text() | st.integers().map(str) | st.floats().map(str)).map(
        lambda hole: frame.replace("{}", hole)
    )
)


@settings(max_examples=150, deadline=None)
@given(environ=st.dictionaries(NAMES, TEXTS, max_size=5), document=TOML, flag=TEXTS)
def test_whatever_is_written_gives_settings_or_faults(
    folder: Path, environ: dict[str, str], document: str, flag: str
) -> None:
    """No environment and no file gives anything but Settings or a SettingsError."""
    (folder / "wavehook.toml").write_bytes(document.encode(errors="surrogatepass"))
    try:
        found = load(environ, overrides={"WAVEHOOK_LEASE": flag}, cwd=folder)
    except SettingsError as error:
        told = error.faults
    else:
        assert isinstance(found, Settings)
        return
    assert told
    assert all(fault.isprintable() and len(fault) < 1000 for fault in told)


def test_other_names_are_not_there() -> None:
    """The package gives what it names, also what it loads late, and nothing else."""
    assert {name for name in config.__all__ if hasattr(config, name)} == set(config.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        config.Nothing  # noqa: B018
