"""The database, as `wavehook check` looks at it: none is made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from receiver.cli.finding import Finding
from receiver.database import open_store
from receiver.errors import SchemaMismatch, SettingsError, StoreError, StoreRefused

if TYPE_CHECKING:
    from receiver.config import Settings

ANOTHER = "name another in WAVEHOOK_DATABASE"

FEW = 8
"""Connections of one `serve`: of the store, one that listens, and two of the ledger."""


def look_at_database(settings: Settings) -> Finding:
    """Look at the database of the settings."""
    path = settings.database_path
    try:
        return asyncio.run(_server(settings)) if path is None else _file(settings, path)
    except SchemaMismatch as error:
        return Finding("database", str(error), f"it was left as it is; {ANOTHER}")
    except SettingsError as error:
        return Finding("database", "; ".join(error.faults), "pip install 'wavehook[postgres]'")
    except StoreRefused as error:
        return Finding("database", error.reason, error.todo)
    except StoreError as error:
        todo = "see that the file is whole and free, and the disk not full"
        if path is None:
            todo = "see that the server runs, and that this machine reaches it"
        return Finding("database", str(error), f"{todo}, or {ANOTHER}")


def _file(settings: Settings, path: Path) -> Finding:
    if not path.parent.is_dir():
        return Finding(
            "database", f"{path}: its folder is not there", f"make the folder {path.parent}"
        )
    if not path.exists():
        try:
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            return Finding(
                "database",
                f"{path}: its folder cannot be written ({error.strerror})",
                f"let this user write there, or {ANOTHER}",
            )
        return Finding("database", f"{path}: not there yet, made at the first start")
    return Finding("database", f"{path}: {asyncio.run(_queue(settings))}")


async def _server(settings: Settings) -> Finding:
    from receiver.stores.postgres_look import look

    where = settings.database_place
    found = await look(settings.database, settings.database_schema, pooler=settings.pooler)
    if found.version == 0 and not found.may_make:
        return Finding(
            "database",
            f"{where}: not there yet, and this user may not make it",
            "grant CREATE on the database to this user, or let its owner run `wavehook migrate`",
        )
    if found.version == 0:
        return Finding("database", f"{where}: not there yet, made at the first start")
    if found.version < found.newest:
        older = f"version {found.version}, brought to {found.newest} at the next start"
        return Finding("database", f"{where}: {older}")
    free = max(found.most - found.used, 0)
    words = f"{where}: {await _queue(settings)}; version {found.version}; "
    words += f"{free} of {found.most} connections free"
    todo = "raise max_connections of the server, or put a pooler before it"
    return Finding("database", words, todo if free < FEW else None)


async def _queue(settings: Settings) -> str:
    store = open_store(settings)
    await store.open()
    try:
        await store.ping()
        depth = (await store.stats()).depth
    finally:
        await store.close()
    waiting = sum(count for (_, state), count in depth.items() if state.open)
    dead = sum(depth.values()) - waiting
    return f"takes events; {waiting} dispatches waiting, {dead} dead"
