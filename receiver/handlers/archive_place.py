"""From `to`, as a person writes it, to the root of an archive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from receiver.handlers.archive_root import Root

EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
SCHEMES = ("s3", "gs", "az")

Option = str | bool | int

# obstore tells these from the options of a store, and ends the thread over one in the wrong place.
_OF_CLIENTS = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("default_headers", "http1_only", "http2_keep_alive_interval", "http2_only"),
        *("http2_keep_alive_timeout", "http2_keep_alive_while_idle", "pool_idle_timeout"),
        *("pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes"),
        *("root_certificate", "randomize_addresses", "read_timeout", "timeout", "user_agent"),
    }
)
_CONNECT, _REQUEST = "10s", "120s"
_RETRIES, _RETRYING = 3, timedelta(seconds=30)


def check_place(text: str) -> str:
    """Return `to`, if it can be a place.

    Raises:
        ValueError: it cannot; the text says what was expected.
    """
    scheme, divider, _ = text.partition("://")
    if "\0" in text or not text.strip():
        raise ValueError(EXPECTED)
    if divider and scheme != "file":
        parts = urlsplit(text)
        if scheme not in SCHEMES or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(EXPECTED)
    elif divider and not re.match("file:///[^/]", text):
        raise ValueError(f"{EXPECTED}; a file URL has three slashes")
    return text


def open_root(to: str, options: Mapping[str, Option]) -> Root:
    """Make the root of an archive; a folder is made where there is none.

    Raises:
        ValueError: it cannot work; the text says which setting is to blame and what was expected.
    """
    if to.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        if "@" in urlsplit(to).netloc:
            raise ValueError("to: a user or password is in it, expected these in `options`")
        return _bucket(to, options)
    if options:
        raise ValueError("options: expected none, a folder has none")
    return _disk(to)


def _disk(to: str) -> Root:
    if os.open not in os.supports_dir_fd:
        raise ValueError(f"to: {to!r}, expected a bucket; this system has no safe way to folders")
    from receiver.handlers.archive_disk import Disk

    path = Path(unquote(urlsplit(to).path) if to.startswith("file://") else to)
    try:
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve(strict=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"to: {to!r}, expected a folder that can be made ({reason})") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise ValueError(f"to: {to!r}, expected a folder that can be written")
    return Disk(root)


def _bucket(to: str, options: Mapping[str, Option]) -> Root:
    try:
        from obstore.store import from_url

        from receiver.handlers.archive_bucket import Bucket, words
    except ImportError:
        install = "pip install 'wavehook[storage]'"
        raise ValueError(f"to: {to!r} needs the extra `storage`; install it: {install}") from None

    client: dict[str, Option] = {"connect_timeout": _CONNECT, "timeout": _REQUEST}
    if any(str(value).startswith("http://") for value in options.values()):
        client["allow_http"] = True
    client |= {key: value for key, value in options.items() if key in _OF_CLIENTS}
    config = {key: value for key, value in options.items() if key not in _OF_CLIENTS}
    try:
        store = from_url(  # type: ignore[call-overload] # a person's keys, which obstore checks
            to,
            config=config,
            client_options=client,
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRYING},
        )
    except Exception as error:  # noqa: BLE001 - errors of obstore are of several kinds
        text = words(error)
        for value in options.values():
            text = text.replace(str(value), "…")
        raise ValueError(f"options: expected those that obstore takes for {to} ({text})") from None
    return Bucket(store, to)
