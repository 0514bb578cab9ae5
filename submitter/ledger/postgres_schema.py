"""The schema in PostgreSQL: made, recognised, and brought up to date by numbered migrations.

The receiver's inbox may stand in the same schema. All tables of the ledger begin with `ledger_`,
and each of the two leaves the other's alone.
"""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

from submitter.errors import LedgerMismatch
from submitter.ledger.postgres_rows import COLUMNS
from submitter.storage.postgres_pool import LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S, PostgresConnection

# Asked of the tables: `to_regclass` and the like may answer from before another's commit.
_SCHEMA = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name"
_TABLE = """SELECT FROM pg_catalog.pg_tables
             WHERE schemaname = $1::text::name AND tablename = 'ledger_schema'"""


def quoted(name: str) -> str:
    """A name as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def channel(schema: str) -> str:
    """Where changes are told of; a schema's own, and no longer than a name may be."""
    return f"wavehook_ledger_{sha256(schema.encode()).hexdigest()[:16]}"


def statements(
    schema: str,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
) -> dict[str, str]:
    """The named statements."""
    text = (files("submitter.ledger") / "sql" / "postgres" / "queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    values = {
        "schema": quoted(schema),
        "columns": ", ".join(COLUMNS),
        "busy": f"{lock_timeout_s * 1000:.0f}",
        "limit": f"{statement_timeout_s * 1000:.0f}",
    }
    return {
        name: _filled(sql, values).strip().removesuffix(";")
        for name, sql in zip(parts[1::2], parts[2::2], strict=True)
    }


async def prepare(connection: PostgresConnection, schema: str) -> None:
    """Make the schema where there is none, and bring it up to date, in the transaction around it.

    Raises:
        LedgerMismatch: a newer version made it.
    """
    scripts = _scripts()
    newest = scripts[-1][0]
    if await _version(connection, schema, newest) == newest:
        return
    # One makes it, the others wait; the inbox, which may stand beside it, has a lock of its own.
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"wavehook ledger {schema}"
    )
    found = await _version(connection, schema, newest)
    # Not `IF NOT EXISTS`: that needs the right to make one also where it is there.
    if not await connection.fetch(_SCHEMA, schema):
        await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
    for number, sql in scripts:
        if number > found:
            await connection.execute(_filled(sql, {"schema": quoted(schema)}))
    await connection.execute(
        f"INSERT INTO {quoted(schema)}.ledger_schema (one, version) VALUES (1, $1) "  # noqa: S608 - a quoted name
        "ON CONFLICT (one) DO UPDATE SET version = excluded.version",
        newest,
    )


def _scripts() -> list[tuple[int, str]]:
    """All migrations as (number, SQL), in order."""
    return sorted(
        (int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in (files("submitter.ledger") / "sql" / "postgres").iterdir()
        if entry.name[:4].isdigit()
    )


async def _version(connection: PostgresConnection, schema: str, newest: int) -> int:
    """The number of the last migration that was applied; 0 before the first."""
    if not await connection.fetch(_TABLE, schema):
        return 0
    select = f"SELECT version FROM {quoted(schema)}.ledger_schema"  # noqa: S608 - a quoted name
    found: int = (await connection.fetchrow(select))[0]
    if found > newest:
        raise LedgerMismatch(
            f"the ledger has schema version {found}, this program works with {newest}: it was "
            "made by a newer Wavehook; upgrade this one, or name another schema",
            found=found,
            expected=newest,
        )
    return found


def _filled(sql: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], sql)
