"""The ledger of a database, whichever kind that is; only its driver is imported."""

from __future__ import annotations

from pathlib import Path

from submitter.errors import BadSettings
from submitter.ledger.base import Ledger
from submitter.postgres import name_fault, url_fault


def ledger_in(path: Path | None, url: str, *, schema: str, pooler: bool) -> Ledger:
    """The ledger, not opened yet.

    Args:
        path: the SQLite file; None: on PostgreSQL.
        url: of the PostgreSQL.
        schema: in it.
        pooler: a transaction-mode pooler stands before it.

    Raises:
        BadSettings: there can be no such database, or its driver is not installed.
    """
    if path is not None:
        from submitter.ledger.sqlite import SQLiteLedger

        return SQLiteLedger(path)
    if fault := url_fault(url):
        raise BadSettings("WAVEHOOK_DATABASE", fault)
    if fault := name_fault(schema):
        raise BadSettings("WAVEHOOK_DATABASE_SCHEMA", fault)
    from submitter.ledger.postgres import PostgresLedger

    return PostgresLedger(url, schema=schema, pooler=pooler)
