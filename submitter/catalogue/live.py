"""Catalogue of models: the built-in ones and the API's list, fetched once an hour, cached on disk.

The cache is one file, which may be missing, broken or unwritable at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitter.api.models import Model
from submitter.catalogue import builtin_model, builtin_models
from submitter.catalogue.validation import MAX_SCHEMA_CHARS
from submitter.errors import RateLimited, SubmitterError, Unavailable
from submitter.prediction import JSON

MAX_MODELS = 10_000
"""Models of one catalogue; further ones are dropped."""

MAX_FILE_BYTES = 64 * 2**20
"""Largest cache file that is read."""

_MAX_ID_CHARS = 256
_MAX_NAME_CHARS = 256
_MAX_DESCRIPTION_CHARS = 4096

_FORMAT = "wavehook models 1"


@dataclass(frozen=True, slots=True)
class CatalogueSnapshot:
    """The API's catalogue at one time.

    Attributes:
        models: by id.
        as_of: Unix seconds.
    """

    models: Mapping[str, Model]
    as_of: float


def bounded(models: Iterable[Model]) -> dict[str, Model]:
    """The models of a catalogue within the limits; what exceeds them is dropped or cut."""
    kept: dict[str, Model] = {}
    for model in models:
        if len(kept) == MAX_MODELS:
            break
        if 0 < len(model.id) <= _MAX_ID_CHARS and model.id.isprintable():
            kept[model.id] = replace(
                model,
                name=model.name[:_MAX_NAME_CHARS],
                type=model.type[:_MAX_NAME_CHARS],
                description=model.description[:_MAX_DESCRIPTION_CHARS],
                schema=_sane(model.schema),
            )
    return kept


def _sane(schema: Mapping[str, JSON] | None) -> Mapping[str, JSON] | None:
    try:
        return schema if len(json.dumps(schema, allow_nan=False)) <= MAX_SCHEMA_CHARS else None
    except (TypeError, ValueError, RecursionError):
        return None


class CatalogueFile:
    """One file.

    Args:
        name: tells apart catalogues of several addresses; any text, of which only a digest is
            seen.
        folder: where the file lies; None: in the user's own folder for such files.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name = f"models-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}.json"
        self._folder = folder

    def read(self) -> CatalogueSnapshot | None:
        """The stored catalogue, or None if there is no readable one."""
        try:
            path = self._place() / self._name
            about = path.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_FILE_BYTES:
                return None
            data = json.loads(path.read_bytes())
        # RecursionError: nested too deeply; ValueError: not JSON or not UTF-8.
        except (OSError, ValueError, RecursionError):
            return None
        return _listing(data)

    def write(self, listing: CatalogueSnapshot) -> None:
        """Replace the stored catalogue; does nothing if the disk cannot be written."""
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
        # A list that cannot be stored is only fetched again.
        with contextlib.suppress(OSError):
            folder = self._place()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A temporary file is readable by its owner only from the start.
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
            FileNotFoundError: the user has no cache folder.
        """
        if self._folder is not None:
            return self._folder
        import platformdirs

        place = platformdirs.user_cache_path("wavehook", appauthor=False)
        # Without a home folder, `~` stays in the path and would name a folder in this directory.
        if not place.is_absolute():
            raise FileNotFoundError
        return place


def _listing(data: Any) -> CatalogueSnapshot | None:
    """Parse a cache file, which another program or version may have written."""
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        return None
    as_of, models = _number(data.get("as_of")), data.get("models")
    if as_of is None or not isinstance(models, list):
        return None
    found = bounded(filter(None, map(_model, models)))
    return CatalogueSnapshot(found, as_of) if found else None


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
    # NaN fails this comparison.
    return float(value) if abs(value) < 1e12 else None


MAX_AGE_S = 3600.0
"""Seconds after which the list of models is fetched again."""

FETCH_TIMEOUT_S = 20.0
"""Timeout of one fetch; a submit does not wait longer for the check of its input."""

FAILURE_PAUSE_S = 60.0
"""Seconds without another fetch after a failure."""


class Catalogue:
    """Catalogue of models: the built-in ones, and those of the API, cached on disk.

    Without network and disk it has the built-in models; it never fails.

    Args:
        fetch: fetches the models from the API.
        name: key of the cache file, such as the base URL.
        folder: of the cache file; None uses the user's cache folder.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[Model]]],
        *,
        name: str = "",
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._cache = CatalogueFile(name, folder)
        self._clock = clock
        self._fetch_lock = asyncio.Lock()
        self._listing: CatalogueSnapshot | None = None
        self._failed_at = 0.0
        self.failure: SubmitterError | None = None
        """Error of the last fetch; None if it succeeded."""

    @property
    def as_of(self) -> float | None:
        """Unix seconds of the fetch of the current list; None without a list."""
        return self._listing.as_of if self._listing else None

    async def model(self, model_id: str) -> Model | None:
        """Find a model; a built-in one without a request.

        Returns:
            The model, or None if it is unknown or the API is not available.
        """
        return builtin_model(model_id) or (await self._live()).get(model_id)

    async def models(self) -> list[Model]:
        """All models, sorted by id; only the built-in ones if the API is not available."""
        live = await self._live()
        whole = dict(live)
        for own in filter(None, map(builtin_model, builtin_models())):
            today = live.get(own.id, own)
            whole[own.id] = replace(own, base_price=today.base_price or own.base_price)
        return sorted(whole.values(), key=lambda model: model.id)

    async def _live(self) -> Mapping[str, Model]:
        # Concurrent callers share one fetch.
        async with self._fetch_lock:
            if not self._is_fresh() and not self._paused():
                await self._renew()
            return self._listing.models if self._listing else {}

    async def _renew(self) -> None:
        # Another process may have fetched it meanwhile.
        stored = await asyncio.to_thread(self._cache.read)
        if stored and (self._listing is None or stored.as_of > self._listing.as_of):
            self._listing = stored
        if self._is_fresh():
            self.failure = None
            return
        fetched_at = self._clock()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                models = await self._fetch()
            if not models:
                raise Unavailable("its list of models is empty")
        except TimeoutError:
            self._failed(Unavailable(f"no list of models within {FETCH_TIMEOUT_S:g} s"))
        except SubmitterError as error:
            self._failed(error)
        else:
            self.failure = None
            self._listing = await asyncio.to_thread(self._keep, models, fetched_at)

    def _keep(self, models: Sequence[Model], as_of: float) -> CatalogueSnapshot:
        listing = CatalogueSnapshot(bounded(models), as_of)
        self._cache.write(listing)
        return listing

    def _failed(self, error: SubmitterError) -> None:
        self.failure = error
        self._failed_at = self._clock()

    def _is_fresh(self) -> bool:
        # A list from the future was written before the clock was corrected.
        return self._listing is not None and 0 <= self._clock() - self._listing.as_of < MAX_AGE_S

    def _paused(self) -> bool:
        if self.failure is None:
            return False
        retry_after = self.failure.retry_after if isinstance(self.failure, RateLimited) else None
        return 0 <= self._clock() - self._failed_at < max(FAILURE_PAUSE_S, retry_after or 0.0)
