"""The live catalogue on disk: one file, which may be missing, broken or unwritable at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitter.api.models import Model
from submitter.catalogue.schemas import MAX_SCHEMA
from submitter.prediction import JSON

MAX_MODELS = 10_000
"""How many models are kept of one catalogue."""

MAX_BYTES = 64 * 2**20
"""Bytes of a file that is read."""

_MAX_ID = 256
_MAX_NAME = 256
_MAX_DESCRIPTION = 4096

_FORMAT = "wavehook models 1"


@dataclass(frozen=True, slots=True)
class Listing:
    """The API's catalogue as it was at one time.

    Attributes:
        models: by id.
        as_of: Unix seconds.
    """

    models: Mapping[str, Model]
    as_of: float


def bounded(models: Iterable[Model]) -> dict[str, Model]:
    """Keep what a catalogue of sane size holds: what is beyond is left out or cut."""
    kept: dict[str, Model] = {}
    for model in models:
        if len(kept) == MAX_MODELS:
            break
        if 0 < len(model.id) <= _MAX_ID and model.id.isprintable():
            kept[model.id] = replace(
                model,
                name=model.name[:_MAX_NAME],
                type=model.type[:_MAX_NAME],
                description=model.description[:_MAX_DESCRIPTION],
                schema=_sane(model.schema),
            )
    return kept


def _sane(schema: Mapping[str, JSON] | None) -> Mapping[str, JSON] | None:
    try:
        return schema if len(json.dumps(schema, allow_nan=False)) <= MAX_SCHEMA else None
    except (TypeError, ValueError, RecursionError):
        return None


class Cache:
    """One file.

    Args:
        name: tells apart catalogues of several addresses; any text, of which only a digest is
            seen.
        folder: where the file lies; None: in the user's own folder for such files.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name = f"models-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}.json"
        self._folder = folder

    def read(self) -> Listing | None:
        """The catalogue as it was written, or None where there is none that can be read."""
        try:
            path = self._place() / self._name
            about = path.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
                return None
            data = json.loads(path.read_bytes())
        # RecursionError: depth; ValueError: no JSON, no UTF-8.
        except (OSError, ValueError, RecursionError):
            return None
        return _listing(data)

    def write(self, listing: Listing) -> None:
        """Put a catalogue in the place of the one that is there; without a disk, without effect."""
        models = [
            {
                "id": model.id,
                "name": model.name,
                "description": model.description,
                "type": model.type,
                "base_price": model.base_price,
                "schema": model.schema,
            }
            for model in listing.models.values()
        ]
        text = json.dumps({"format": _FORMAT, "as_of": listing.as_of, "models": models})
        # A list that cannot be kept is only asked for again.
        with contextlib.suppress(OSError):
            folder = self._place()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Such a file is its owner's alone from its first moment on.
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
                temporary = Path(file.name)
                try:
                    file.write(text)
                    file.close()
                    temporary.replace(folder / self._name)
                except BaseException:
                    temporary.unlink()
                    raise

    def _place(self) -> Path:
        """The folder.

        Raises:
            FileNotFoundError: nobody knows where this user's files are.
        """
        if self._folder is not None:
            return self._folder
        import platformdirs

        place = platformdirs.user_cache_path("wavehook", appauthor=False)
        # Without a home, `~` stays as it is, and would be a folder of that name right here.
        if not place.is_absolute():
            raise FileNotFoundError
        return place


def _listing(data: Any) -> Listing | None:
    """Read what may be another program's, or another version's."""
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        return None
    as_of, models = _number(data.get("as_of")), data.get("models")
    if as_of is None or not isinstance(models, list):
        return None
    found = bounded(filter(None, map(_model, models)))
    return Listing(found, as_of) if found else None


def _model(data: Any) -> Model | None:
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        return None
    schema = data.get("schema")
    return Model(
        id=data["id"],
        name=_text(data.get("name")) or data["id"],
        description=_text(data.get("description")),
        type=_text(data.get("type")),
        base_price=_number(data.get("base_price")),
        schema=schema if isinstance(schema, dict) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN is below nothing.
    return float(value) if abs(value) < 1e12 else None
