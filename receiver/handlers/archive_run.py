"""One run of an archive for one event: what is missing is fetched, then the manifest written."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from receiver.errors import GiveUp, Retry
from receiver.event import Event
from receiver.handlers.archive_download import Doubtful, Download
from receiver.handlers.archive_manifest import Kept, kept_in, manifest, progress
from receiver.handlers.archive_names import Name, Template, of_event
from receiver.handlers.archive_root import OURS, Root, Taken
from receiver.handlers.base import Context
from receiver.handlers.envelope import moment
from receiver.handlers.retry import describe

MAX_CONCURRENT_DOWNLOADS = 4
"""Outputs of one event that are fetched at the same time."""

DOUBT = 900.0
"""Seconds after an event in which what is not there, or not as it should be, may still come."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for every event.

    Attributes:
        root: where files are kept.
        name: of an output.
        manifest: the name of the manifest.
        download: fetches one output.
        expires: seconds after the task's end for which its outputs can be had.
    """

    root: Root
    name: Template
    manifest: Template
    download: Download
    expires: float


class Run:
    """One run; what it has done, the next one finds."""

    def __init__(
        self,
        plan: Plan,
        client: httpx.AsyncClient,
        event: Event,
        context: Context,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._root = plan.root
        self._client = client
        self._event = event
        self._clock = clock
        left = context.deadline - clock()
        # The rest of it is for an end in good order, of which the next run has more.
        self._until = asyncio.get_running_loop().time() + left - min(5.0, left / 10)
        self._key = hashlib.sha256(context.key.encode(errors="surrogatepass")).hexdigest()[:32]
        self._note = f"{OURS}/{self._key}.json"
        self._values = of_event(plan.name, event)
        self._kept: dict[int, Kept] = {}
        self._noting = asyncio.Lock()
        self._places = asyncio.Semaphore(MAX_CONCURRENT_DOWNLOADS)

    async def __call__(self, urls: Mapping[int, str], count: int) -> list[Kept]:
        """Keep these outputs, and return what is kept of each.

        Args:
            urls: by their place among the outputs.
            count: of all outputs, also of those that are no files.

        Raises:
            Retry: one could not be had now.
            GiveUp: one cannot be had any more, and no other is left to be tried.
        """
        try:
            return await self._all(urls, count)
        except GiveUp:
            raise
        except Exception as error:  # noqa: BLE001 - told in words of ours, and not for ever
            raise self._failure({"": error}) from None

    async def _all(self, urls: Mapping[int, str], count: int) -> list[Kept]:
        name = self._plan.manifest.fill(of_event(self._plan.manifest, self._event))
        before = kept_in(await self._root.read(name), self._event)
        if before is None:
            raise GiveUp(
                "another event's manifest has its name; expected a `manifest` that differs"
            )
        noted = [] if before else kept_in(await self._root.read(self._note), self._event) or []
        for each in (*before, *noted):
            if urls.get(each.index) == each.source and await self._there(each):
                self._kept[each.index] = each
        missing = {index: url for index, url in urls.items() if index not in self._kept}
        errors = await self._fetch(missing)
        if errors:
            failure = self._failure(
                {f"output {index + 1} of {count}: ": each for index, each in errors.items()}
            )
            if isinstance(failure, GiveUp):
                for index in errors:
                    await self._root.forget(self._part(index))
            raise failure
        kept = [self._kept[index] for index in sorted(urls)]
        if missing or not before:
            await self._root.write(name, manifest(self._event, kept, self._clock()))
        if noted or len(missing) > 1:
            await self._root.remove(self._note)
        return kept

    async def _there(self, kept: Kept) -> bool:
        return await self._root.size(kept.name) == kept.size

    async def _fetch(self, missing: Mapping[int, str]) -> dict[int, Exception]:
        """Fetch outputs side by side; one that fails stops no other."""
        jobs = [self._one(index, url, note=len(missing) > 1) for index, url in missing.items()]
        ended = await asyncio.gather(*jobs)
        return {
            index: error for index, error in zip(missing, ended, strict=True) if error is not None
        }

    async def _one(self, index: int, url: str, *, note: bool) -> Exception | None:
        async with self._places:
            try:
                await self._keep(index, url)
                if note:
                    async with self._noting:
                        await self._root.write(
                            self._note, progress(self._event, self._kept.values())
                        )
            except Exception as error:  # noqa: BLE001 - it is told with those of the others
                return error
        return None

    async def _keep(self, index: int, url: str) -> None:
        name = Name(self._plan.name, {**self._values, "index": str(index)})
        part = await self._root.part(self._part(index), name)
        try:
            await self._plan.download.fetch(self._client, url, part, self._until)
            called = await part.keep()
        except Taken:
            raise GiveUp("another file has its name; expected a `name` that differs") from None
        finally:
            await part.close()
        content = part.content
        self._kept[index] = Kept(
            index,
            url,
            called,
            content.size,
            content.sha256,
            content.kind.content_type,
            moment(self._clock()),
        )

    def _part(self, index: int) -> str:
        return f"{self._key}-{index}"

    def _failure(self, errors: Mapping[str, Exception]) -> GiveUp | Retry:
        """What one or several errors, each with the words before it, come to."""
        event, now = self._event, self._clock()
        expired = now > (event.occurred_at or event.received_at) + self._plan.expires
        doubted = now > event.received_at + DOUBT
        text = "; ".join(f"{before}{_words(error)}" for before, error in errors.items())
        passing = [
            error
            for error in errors.values()
            if not (isinstance(error, GiveUp) or (doubted and isinstance(error, Doubtful)))
        ]
        if expired or not passing:
            return GiveUp(f"{text}; outputs can be had no longer" if expired else text)
        waits = [error for error in passing if isinstance(error, Retry)]
        after = max((error.after for error in waits if error.after is not None), default=None)
        return Retry(text, after=after, pause=any(error.pause for error in waits))


def _words(error: Exception) -> str:
    """A line about an error; names of files may hold what is private."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return describe(error)
