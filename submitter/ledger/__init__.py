"""The ledger of submissions: one entry for every task, written before its request is sent.

Begin with `base`, the port and its promises; `transitions` holds what every operation does to an
entry, and `memory`, `sqlite` and `postgres` are the backends. It imports `submitter.prediction`,
`submitter.errors` and the engine in `submitter.storage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitter.errors import BadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from submitter.ledger.base import Ledger


def open_ledger(path: Path | None, url: str, *, schema: str, pooler: bool) -> Ledger:
    """The ledger of a database; call its `open` before use. Only the driver it needs is imported.

    Args:
        path: of the SQLite file; None for PostgreSQL.
        url: of the PostgreSQL database.
        schema: the PostgreSQL schema.
        pooler: connections go through a transaction-mode pooler.

    Raises:
        BadSettings: the URL or the schema's name is not valid, or the driver is not installed.
    """
    if path is not None:
        from submitter.ledger.sqlite import SQLiteLedger

        return SQLiteLedger(path)
    from submitter.storage.postgres_pool import schema_name_fault, url_fault

    if fault := url_fault(url):
        raise BadSettings("WAVEHOOK_DATABASE", fault)
    if fault := schema_name_fault(schema):
        raise BadSettings("WAVEHOOK_DATABASE_SCHEMA", fault)
    from submitter.ledger.postgres import PostgresLedger

    return PostgresLedger(url, schema=schema, pooler=pooler)
