"""The settings of `archive`: every fault at start, in words that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.handlers.archive import handler
from receiver.handlers.archive.bucket import BucketStorage
from receiver.handlers.archive.handler import Archive, ArchiveSettings, create
from receiver.handlers.loading import load_section
from receiver.handlers.retry import Backoff
from tests.support.outputs import files

S3 = {"to": "s3://videos/made", "options": {"region": "eu-central-1"}}


def faults(**settings: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        create("keep", settings)
    return list(error.value.faults)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"to": None}, "to: None, expected a text"),
        ({"to": " "}, "to: ' ', expected a folder, s3://BUCKET/PREFIX, gs://"),
        ({"to": "a\0b"}, "to: 'a\\x00b', expected a folder"),
        ({"to": "ftp://x/y"}, "to: 'ftp://x/y', expected a folder, s3://BUCKET/PREFIX"),
        ({"to": "s3://"}, "to: 's3://', expected a folder, s3://BUCKET/PREFIX"),
        ({"to": "s3://key:s3cret@b"}, "to: it contains a user or password; put these into `opt"),
        ({"to": "s3://b/p?x=1"}, "to: 's3://b/p?x=1', expected a folder, s3://BUCKET/PREFIX"),
        ({"to": "file://videos"}, "to: 'file://videos', expected a folder, s3://BUCKET/PREFIX"),
        ({"to": "file:///"}, "to: 'file:///', expected a folder, s3://BUCKET/PREFIX"),
        ({"name": "../{task}{index}"}, "name: '../{task}{index}', expected a relative path"),
        ({"name": "{job}"}, "name: '{job}', expected fields in braces, of date, task, model"),
        ({"name": "{task}{ext}"}, "name: '{task}{ext}', expected {index} or {sha256} in it"),
        ({"name": "{date}/{index}"}, "name: '{date}/{index}', expected {task}, {sha256} or a"),
        ({"manifest": "{date}.json"}, "manifest: '{date}.json', expected {task} in it"),
        ({"manifest": "{task}{index}"}, "manifest: '{task}{index}', expected fields in braces"),
        ({"types": []}, "types: [], expected at least one"),
        ({"max_size": "big"}, "max_size: 'big', expected a size such as 512KiB, 10 MiB or 2GB"),
        ({"max_size": 0}, "max_size: 0, expected a number greater than 0"),
        ({"expires": "soon"}, "expires: 'soon', expected a duration such as 500ms"),
        ({"public_url": "cdn.example"}, "public_url: 'cdn.example', expected an http or https URL"),
        ({"public_url": "https://x/?a=1"}, "public_url: 'https://x/?a=1', expected an http or"),
        ({"public_url": "https://x:y/"}, "public_url: 'https://x:y/', expected an http or https"),
        ({"allow": ["http://x"]}, "allow: ['http://x'], expected host, host:port"),
        ({"options": {"a": "s3cret"}}, "options: expected none, because `to` is a folder"),
        ({"options": {"a": ["s3cret"]}}, "options: '…', expected"),
        ({"folder": "x"}, "folder: unknown key, expected one of after, allow, concurrency"),
    ],
)
def test_faults_show_at_start(settings: dict[str, Any], fault: str, tmp_path: Path) -> None:
    """F16, F36: each names its key and what was expected; secrets are not shown."""
    found = "\n".join(faults(**{"to": str(tmp_path / "videos"), **settings}))
    assert f"handlers.keep.{fault}" in found
    assert "s3cret" not in found
    assert not (tmp_path / "videos").exists()


def test_what_is_missing_says_what_it_is() -> None:
    """The one setting without a default."""
    assert faults() == [
        (
            "handlers.keep.to: missing, expected a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX "
            "or az://CONTAINER/PREFIX"
        )
    ]


@pytest.mark.parametrize(
    "written", ["videos/made", "{cwd}/videos/made", "file://{cwd}/videos/made"]
)
def test_a_folder_is_made_where_there_is_none(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, absolute, or as a URL; a later change of the working directory changes nothing."""
    monkeypatch.chdir(tmp_path)
    create("keep", {"to": written.format(cwd=tmp_path)})
    assert (tmp_path / "videos" / "made").is_dir()


def test_a_folder_that_cannot_be_is_a_fault(tmp_path: Path) -> None:
    """A file stands in its place, or nobody may write there."""
    (tmp_path / "file").write_bytes(b"")
    for place in ("file", "file/below"):
        [fault] = faults(to=str(tmp_path / place))
        assert fault.startswith(
            f"handlers.keep.to: '{tmp_path / place}', expected a folder that can"
        )


def test_a_folder_that_may_not_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: said at start, and not with the first video; who runs tests may write anywhere."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    [fault] = faults(to=str(tmp_path))
    assert fault.endswith("expected a folder that can be written")


def test_a_system_without_safe_folders_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36: where no folder can be opened from the one above it, buckets are left."""
    monkeypatch.setattr(os, "supports_dir_fd", set())
    [fault] = faults(to=str(tmp_path))
    assert "expected a bucket: this system cannot open files relative" in fault


def test_a_bucket_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    [fault] = faults(**S3)
    assert fault == (
        "handlers.keep.to: 's3://videos/made' needs the extra `storage`; install it: "
        "pip install 'wavehook[storage]'"
    )


@pytest.mark.parametrize(
    ("to", "options"),
    [
        (
            "s3://videos/made",
            {"access_key_id": "k", "secret_access_key": "s3cret", "timeout": "5s"},
        ),
        ("s3://videos", {"endpoint": "http://127.0.0.1:9000", "allow_http": False}),
        ("gs://videos/made", {"skip_signature": True}),
        ("az://videos/made", {"account_name": "acc", "account_key": "c2VjcmV0"}),
    ],
)
def test_buckets_of_three_kinds(to: str, options: dict[str, Any]) -> None:
    """Options are the store's or its client's, by the name that obstore has for them."""
    root = handler.open_storage(to, options)
    assert isinstance(root, BucketStorage)
    assert "s3cret" not in repr(root.store)


@pytest.mark.parametrize(
    ("to", "options", "reason"),
    [
        ("s3://videos", {"bogus": "s3cret"}, "UnknownConfigurationKeyError: 'bogus' is not valid"),
        ("az://videos", {"account_key": "s3cret"}, "Account must be specified"),
        ("az://videos", {"account_name": "a", "account_key": "s3cret!"}, ""),
        ("gs://videos", {"service_account_key": "{s3cret"}, ""),
        ("s3://videos", {"conditional_put": "s3cret"}, ""),
    ],
)
def test_options_that_the_store_does_not_take(to: str, options: Any, reason: str) -> None:
    """F16: in obstore's words, without the values."""
    [fault] = faults(to=to, options=options)
    assert fault.startswith(f"handlers.keep.options: expected those that obstore takes for {to} (")
    assert reason in fault
    assert "s3cret" not in fault


def test_settings_do_not_show_options() -> None:
    """F16: credentials may stand there."""
    assert "s3cret" not in repr(
        ArchiveSettings.model_validate({"to": "x", "options": {"k": "s3cret"}})
    )


def test_an_archive_has_rules_of_its_own(tmp_path: Path) -> None:
    """F23: half an hour for a run, and as many of them as fit into the life of an output."""
    one = load_section("keep", {"use": "archive", "to": str(tmp_path)})
    assert isinstance(one.handle, Archive)
    assert one.route.on == ("prediction.completed",)
    assert (one.timeout, one.concurrency) == (1800.0, 4)
    assert one.retry == Backoff(1000, 5.0, 3600.0)
    assert one.check == one.handle.check
    other = load_section("keep", {"use": "archive", "to": str(tmp_path), "timeout": "5m"})
    assert (other.timeout, other.retry) == (300.0, one.retry)
    assert files(tmp_path) == {}
