"""Schemas from the API: references to other addresses are not fetched."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from submitter.catalogue import check

A: dict[str, Any] = {"a": "x"}


def faults(schema: dict[str, Any], **input: Any) -> dict[str, str]:
    return {fault.path: fault.message for fault in check(schema, input)}


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """F34: a reference to another address is not followed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        assert faults({"$ref": url, "maxProperties": 0}, **A) == {}
        with pytest.raises(BlockingIOError):
            server.accept()
