"""What the vendor refuses, and in which words."""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Mapping
from datetime import datetime

import httpx
import jsonschema

from submitter import catalogue
from submitter.prediction import JSON
from submitter.submit.json_check import unfit

MAX_WORDS = 300
"""Characters of a refusal; a validator's own words repeat the value."""


class BadRequest(Exception):
    """The request is refused with 400; the text goes to the sender."""


def read_object(body: bytes) -> dict[str, JSON]:
    """Read a JSON object that can be repeated in an answer.

    Raises:
        BadRequest: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Invalid JSON body") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object")
    faults, _ = unfit(value)
    if faults:
        raise BadRequest(str(faults[0]))
    return value


def check_input(input: Mapping[str, JSON], model: str) -> None:
    """Hold an input against the JSON Schema of a built-in model.

    Raises:
        BadRequest: it does not fit.
    """
    first = next(_validator(model).iter_errors(dict(input)), None)
    if first is not None:
        where = ".".join(map(str, first.absolute_path)) or "input"
        raise BadRequest(f"{where}: {first.message}"[:MAX_WORDS])


@functools.cache
def _validator(model: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(catalogue.builtin(model) or {})


def check_webhook(url: str) -> None:
    """Refuse a webhook URL that must not or cannot be called.

    Plain HTTP is for this machine only: a webhook's URL carries a token.

    Raises:
        BadRequest: it is no absolute http(s) URL, or plain HTTP off loopback.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        raise BadRequest("webhook: must be a URL, percent-encoded in the query") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadRequest("webhook: must be an https URL")
    if parsed.scheme == "http" and not _loopback(parsed.host):
        raise BadRequest("webhook: must be an https URL (plain http only to this machine)")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def whole(query: Mapping[str, JSON], name: str, most: int) -> int:
    """A whole number from 1 to `most`.

    Raises:
        BadRequest: it is none.
    """
    value = query.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise BadRequest(f"{name}: must be a whole number from 1 to {most}")


def text(query: Mapping[str, JSON], name: str) -> str:
    """A text that is not empty.

    Raises:
        BadRequest: it is none.
    """
    value = query.get(name)
    if isinstance(value, str) and value:
        return value
    raise BadRequest(f"{name}: must be a text")


def moment(query: Mapping[str, JSON], name: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None where it is left out or empty.

    Raises:
        BadRequest: it is none.
    """
    value = query.get(name)
    if value in (None, ""):
        return None
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    # OverflowError: a time that is out of the platform's range.
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: must be a time such as 2026-03-01T09:12:48Z") from None
