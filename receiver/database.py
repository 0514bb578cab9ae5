"""Factories of the store, the ledger and the seal that the settings describe.

Only the backend that is used is imported, SQLite or PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path

from receiver.config import Settings
from receiver.errors import SettingsError
from receiver.stores.base import Store
from submitter.errors import BadSettings
from submitter.ledger import open_ledger
from submitter.ledger.base import Ledger
from submitter.storage.postgres_pool import URL_FORMAT
from submitter.submit.context_token import Seal, load_or_create_key

_NO_SEAL_KEYS = (
    "WAVEHOOK_SEAL_KEYS: it is not set, and on PostgreSQL no key file is made; expected the same "
    "keys on all machines: `wavehook secret --seal-key` makes one"
)


def open_store(settings: Settings, *, listen: bool = False) -> Store:
    """The store of the settings; call its `open` before use.

    Args:
        settings: name the database.
        listen: this process runs a dispatcher, which other processes' events must wake.

    Raises:
        SettingsError: the database cannot be where it is named, or its driver is not installed.
    """
    path = _sqlite_file(settings)
    if path is None:
        from receiver.stores.postgres import PostgresStore

        return PostgresStore(
            settings.database,
            schema=settings.database_schema,
            pooler=settings.database_pooler,
            clock="server",
            listen=listen,
        )
    if not path.parent.is_dir():
        where = f"WAVEHOOK_DATABASE = {settings.database!r}"
        raise SettingsError([f"{where}: expected the folder {path.parent} to exist"])
    from receiver.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


async def inbox_exists(settings: Settings) -> bool:
    """True if the database has an inbox; creates nothing.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
        SchemaMismatch: a newer version made it.
        SettingsError: the database's driver is not installed.
    """
    path = settings.database_path
    if path is not None:
        return path.exists()
    from receiver.stores.postgres import probe

    found = await probe(
        settings.database, settings.database_schema, pooler=settings.database_pooler
    )
    return found.version > 0


def settings_ledger(settings: Settings) -> Ledger:
    """The ledger of the settings, in the store's database; call its `open` before use.

    Raises:
        SettingsError: the database is a file on a disk that does not last.
    """
    return open_ledger(
        _sqlite_file(settings),
        settings.database,
        schema=settings.database_schema,
        pooler=settings.database_pooler,
    )


def settings_seal(settings: Settings) -> Seal:
    """The seal with the keys of the settings, or of the key file beside a SQLite file.

    Raises:
        SettingsError: a key is not valid or is missing, or the file cannot be read or created.
    """
    path = settings.key_path
    keys = tuple(key.get_secret_value() for key in settings.seal_keys)
    if path is None and not keys:
        raise SettingsError([_NO_SEAL_KEYS])
    try:
        return Seal(keys if path is None else keys or (load_or_create_key(path),))
    except BadSettings as error:
        raise SettingsError([str(error)]) from None


def _sqlite_file(settings: Settings) -> Path | None:
    """The SQLite file, which a platform with a passing disk refuses; None on PostgreSQL."""
    path, platform = settings.database_path, settings.platform
    if path is not None and platform is not None:
        fault = (
            f"WAVEHOOK_DATABASE = {settings.database!r}: a SQLite file does not last on "
            f"{platform.name}, whose disk {platform.disk}; expected {URL_FORMAT}"
        )
        raise SettingsError([fault])
    return path
