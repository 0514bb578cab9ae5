"""What inbox and ledger share of PostgreSQL: address, schema's name, words for a refusal."""

from __future__ import annotations

import re

SCHEMA = "wavehook"

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
"""A schema's name: as it stands in a statement without quotes, and short enough for a channel."""

EXPECTED = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

_HOST = r"(?:[\w.%-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?"
_URL = re.compile(
    rf"""postgres(?:ql)?://(?:[^@/?\#\s]*@)?
         ((?:{_HOST}(?:,{_HOST})*)?  # the hosts
          (?:/[\w.%-]*)?)            # the database
         (?:\?[^@\#\s]*)?""",
    re.VERBOSE,
)
"""A URL that is anything else may have a part of its password where the host should be."""

_WORDS = {
    "28": "correct user, password and sslmode in WAVEHOOK_DATABASE",
    "3D000": "make the database, or name another in WAVEHOOK_DATABASE",
    "42704": "take what it does not know out of WAVEHOOK_DATABASE",
    "42501": "grant this user what the README says, or let the owner run `wavehook migrate`",
}
"""SQLSTATEs of what another try does not help, each with what to do
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def is_postgres(url: str) -> bool:
    """Whether a `WAVEHOOK_DATABASE` is meant to be a PostgreSQL."""
    return url.startswith(("postgresql://", "postgres://"))


def url_fault(url: str) -> str | None:
    """Why a URL cannot be a PostgreSQL's; never repeats a part of it."""
    found = _URL.fullmatch(url)
    if found is None:
        return f"expected {EXPECTED}, with %-codes for characters such as @ : / ? # in a password"
    ports = re.findall(r":(\d+)", re.sub(r"\[[^\]]*\]", "", found[1]))
    fit = all(0 < int(port) < 65536 for port in ports)
    return None if fit else "expected a port from 1 to 65535"


def name_fault(schema: str) -> str | None:
    """Why no schema can have a name."""
    if _NAME.fullmatch(schema) and not schema.startswith("pg_"):
        return None
    return (
        "expected lower-case letters, digits and underscores, at most 48, not beginning with pg_ "
        "or a digit"
    )


def place(url: str) -> str:
    """The hosts and the database of a URL, for people: never the user's name and password.

    Args:
        url: as `WAVEHOOK_DATABASE`.
    """
    found = _URL.fullmatch(url)
    return f"PostgreSQL at {found[1]}" if found and found[1] else "PostgreSQL"


def advice(sqlstate: str) -> str | None:
    """What to do about an error that another try does not help; None for any other."""
    return next((words for state, words in _WORDS.items() if sqlstate.startswith(state)), None)
