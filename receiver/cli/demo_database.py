"""Where a demo has its inbox: a file, or a schema of its own on the environment's PostgreSQL."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from receiver.config import Settings, load

KEPT = "wavehook-demo.db"

_NAMES = ("WAVEHOOK_DATABASE", "WAVEHOOK_DATABASE_POOLER")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the inbox is.

    Attributes:
        settings: with the database, and else as they are by default.
        kept: it will still be there afterwards.
    """

    settings: Settings
    kept: bool = False


@asynccontextmanager
async def placed(path: str | None, *, keep: bool) -> AsyncIterator[Place]:
    """The place of one demo, which goes with it unless it is to be kept.

    Args:
        path: a file to keep it in.
        keep: keep it.

    Raises:
        SettingsError: the environment's database cannot be.
    """
    given = _given()
    if path is None and given.database_path is None:
        async with _schema(given, keep=keep) as place:
            yield place
    elif path is None and not keep:
        with tempfile.TemporaryDirectory(prefix="wavehook-demo-") as folder:
            yield in_file(Path(folder) / "inbox.db")
    else:
        yield in_file(_free(path or KEPT), kept=True)


def in_file(path: Path, *, kept: bool = False) -> Place:
    """A place in a SQLite file."""
    return Place(Settings(database=f"sqlite:///{path}"), kept)


def _given() -> Settings:
    """The environment's database alone: a demo is the same whatever all else says."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WAVEHOOK_")}
    ours = {name: os.environ[name] for name in _NAMES if os.environ.get(name)}
    return load({**others, **ours, "WAVEHOOK_CONFIG": os.devnull}, cwd=Path.cwd())


@asynccontextmanager
async def _schema(given: Settings, *, keep: bool) -> AsyncIterator[Place]:
    schema = f"wavehook_demo_{secrets.token_hex(4)}"
    try:
        yield Place(replace(given, database_schema=schema), keep)
    finally:
        if not keep:
            from receiver.stores.postgres_migrate import remove

            await remove(given.database, schema, pooler=given.pooler)


def _free(name: str) -> Path:
    path = Path(name).resolve()
    if path.exists():
        raise typer.BadParameter(f"{path} is there already; name another", param_hint="PATH")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}", param_hint="PATH")
    return path
