"""`wavehook serve` on an address that it cannot listen on."""

from __future__ import annotations

import pytest

from tests.support.command import run

pytestmark = pytest.mark.usefixtures("folder")

SECRET = "whsec_h1dden"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("192.0.2.1", "cannot listen on"), ("no such host", "cannot listen on")],
)
def test_serve_on_an_address_of_others(
    host: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that is not this machine's ends with 1, in words."""
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", SECRET)
    result = run("serve", "--host", host)
    assert (result.exit_code, expected in result.stderr) == (1, True)
    assert "Traceback" not in result.output
