"""The database that the settings name: its store, its ledger, and the keys that may lie beside it.

Of the two kinds, only the one that is named is imported.
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

NO_KEYS = (
    "WAVEHOOK_SEAL_KEYS: it is not set, and on PostgreSQL no key file is made; expected the same "
    "keys on all machines: `wavehook secret --seal-key` makes one"
)


def open_store(settings: Settings, *, listen: bool = False) -> Store:
    """The store, not opened yet.

    Args:
        settings: with the database.
        listen: this process waits for dispatches that others add: it runs a dispatcher.

    Raises:
        SettingsError: the database cannot be there, or its driver is not installed.
    """
    path = _lasting(settings)
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


async def there(settings: Settings) -> bool:
    """Whether there is an inbox; none is made.

    Raises:
        StoreUnavailable: the server cannot be reached, or does not let us in.
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


def ledger_of(settings: Settings) -> Ledger:
    """The ledger, which is in the store's own database; not opened yet.

    Raises:
        SettingsError: the database would not last.
    """
    return open_ledger(
        _lasting(settings),
        settings.database,
        schema=settings.database_schema,
        pooler=settings.database_pooler,
    )


def seal_of(settings: Settings) -> Seal:
    """The seal of the settings' keys, or of the key file beside a SQLite file.

    Raises:
        SettingsError: a key is none or is missing, or the file cannot be read or made.
    """
    path = settings.key_path
    keys = tuple(key.get_secret_value() for key in settings.seal_keys)
    if path is None and not keys:
        raise SettingsError([NO_KEYS])
    try:
        return Seal(keys if path is None else keys or (load_or_create_key(path),))
    except BadSettings as error:
        raise SettingsError([str(error)]) from None


def _lasting(settings: Settings) -> Path | None:
    """The SQLite file, where its disk lasts; None on PostgreSQL."""
    path, platform = settings.database_path, settings.platform
    if path is not None and platform is not None:
        fault = (
            f"WAVEHOOK_DATABASE = {settings.database!r}: a SQLite file does not last on "
            f"{platform.name}, whose disk {platform.disk}; expected {URL_FORMAT}"
        )
        raise SettingsError([fault])
    return path
