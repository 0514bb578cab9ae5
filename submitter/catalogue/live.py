"""The models that the API has now, asked for once an hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from submitter.api.models import Model
from submitter.catalogue import builtin_model, builtin_models
from submitter.catalogue.cache import Cache, Listing, bounded
from submitter.errors import RateLimited, SubmitterError, Unavailable

FRESH = 3600.0
"""Seconds for which the API's list of models is believed."""

PATIENCE = 20.0
"""Seconds that the API may take; who submits does not wait longer to have an input checked."""

PAUSE = 60.0
"""Seconds after a failure in which it is not asked again."""


class Catalogue:
    """Every model: the built-in ones, and those of the API, which are kept on disk.

    Without network and without disk it knows the built-in models; it never fails.

    Args:
        fetch: asks the API for its models.
        name: tells apart the catalogues of several addresses, such as the base URL.
        folder: where they are kept; None: in the user's cache folder.
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
        self._cache = Cache(name, folder)
        self._clock = clock
        self._asking = asyncio.Lock()
        self._listing: Listing | None = None
        self._failed_at = 0.0
        self.failure: SubmitterError | None = None
        """Why the API's list could not be had when it was last asked for; None where it could."""

    @property
    def as_of(self) -> float | None:
        """Unix seconds, when the API gave the list that is used; None where there is none."""
        return self._listing.as_of if self._listing else None

    async def model(self, model_id: str) -> Model | None:
        """Find a model; a built-in one without asking anybody.

        Returns:
            The model, or None where nobody knows it, or nobody can be asked.
        """
        return builtin_model(model_id) or (await self._live()).get(model_id)

    async def models(self) -> list[Model]:
        """All models, sorted by id; the built-in ones alone where the API's cannot be had."""
        live = await self._live()
        whole = dict(live)
        for own in filter(None, map(builtin_model, builtin_models())):
            today = live.get(own.id, own)
            whole[own.id] = replace(own, base_price=today.base_price or own.base_price)
        return sorted(whole.values(), key=lambda model: model.id)

    async def _live(self) -> Mapping[str, Model]:
        # Whoever comes while it is asked for waits for that answer.
        async with self._asking:
            if not self._is_fresh() and not self._paused():
                await self._renew()
            return self._listing.models if self._listing else {}

    async def _renew(self) -> None:
        # Another process may have asked by now.
        stored = await asyncio.to_thread(self._cache.read)
        if stored and (self._listing is None or stored.as_of > self._listing.as_of):
            self._listing = stored
        if self._is_fresh():
            self.failure = None
            return
        asked_at = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                models = await self._fetch()
            if not models:
                raise Unavailable("its list of models is empty")
        except TimeoutError:
            self._failed(Unavailable(f"no list of models within {PATIENCE:g} s"))
        except SubmitterError as error:
            self._failed(error)
        else:
            self.failure = None
            self._listing = await asyncio.to_thread(self._keep, models, asked_at)

    def _keep(self, models: Sequence[Model], as_of: float) -> Listing:
        listing = Listing(bounded(models), as_of)
        self._cache.write(listing)
        return listing

    def _failed(self, error: SubmitterError) -> None:
        self.failure = error
        self._failed_at = self._clock()

    def _is_fresh(self) -> bool:
        # What comes from the future was written before a clock was put right.
        return self._listing is not None and 0 <= self._clock() - self._listing.as_of < FRESH

    def _paused(self) -> bool:
        if self.failure is None:
            return False
        asked = self.failure.retry_after if isinstance(self.failure, RateLimited) else None
        return 0 <= self._clock() - self._failed_at < max(PAUSE, asked or 0.0)
