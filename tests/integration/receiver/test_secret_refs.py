"""`ssm:NAME` in place of a value; moto's server stands in for AWS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver import secret_refs
from receiver.config import read
from receiver.handlers.settings import resolve
from tests.support import needed
from tests.support.broker_queues import amazon

SECRET = "whsec_in_the_store"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an empty store, where boto3 looks for it by itself."""
    boto3 = needed.module("boto3")
    secret_refs._client.cache_clear()
    with amazon() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", url)
        client = boto3.client("ssm")
        yield client
        client.close()
        secret_refs._client().close()
    secret_refs._client.cache_clear()


def test_a_secret_of_the_parameter_store(store: Any, tmp_path: Path) -> None:
    """It is decrypted, is one of several values, and is shown nowhere (F16)."""
    store.put_parameter(Name="/wavehook/secret", Value=SECRET, Type="SecureString")
    store.put_parameter(Name="plain", Value="20s", Type="String")

    reading = read(
        {
            "WAVEHOOK_WAVESPEED_SECRETS": "ssm:/wavehook/secret, whsec_other",
            "WAVEHOOK_GRACE": "ssm:plain",
        },
        cwd=tmp_path,
    )

    assert reading.faults == ()
    found = reading.settings
    assert [each.get_secret_value() for each in found.wavespeed_secrets] == [SECRET, "whsec_other"]
    assert found.grace == 20.0
    assert SECRET not in repr(reading)
    assert resolve({"url": "ssm:/wavehook/secret"}, "handlers.x", []) == {"url": SECRET}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("ssm:/none/such", "expected a parameter that can be read (ParameterNotFound)"),
        ("ssm:", "expected a name after ssm:"),
    ],
)
def test_a_parameter_that_is_not_there(
    store: Any, tmp_path: Path, written: str, reason: str
) -> None:
    """F15: the fault names the setting and the parameter."""
    secret_refs._client()
    (fault,) = read({"WAVEHOOK_ADMIN_TOKEN": written}, cwd=tmp_path).faults

    assert fault == f"WAVEHOOK_ADMIN_TOKEN = {written!r}: {reason}"


def test_a_store_that_is_away(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: the reason is told in a word."""
    secret_refs._client().close()
    secret_refs._client.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1")

    (fault,) = read({"WAVEHOOK_ADMIN_TOKEN": "ssm:x"}, cwd=tmp_path).faults

    assert fault.endswith("(EndpointConnectionError)")


def test_without_boto3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """F15: the fault names the extra."""
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)

    (fault,) = read({"WAVEHOOK_ADMIN_TOKEN": "ssm:x"}, cwd=tmp_path).faults

    assert fault.endswith("pip install 'wavehook[aws]'")
