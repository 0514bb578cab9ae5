"""`archive`: keeps every output of a completed prediction; the API has them for 7 days.

    [handlers.keep]
    use = "archive"
    to = "s3://videos/made"                 # or a folder, gs://…, az://…
    name = "{date}/{task}/{index}{ext}"
    public_url = "https://cdn.example/made"
    options = { region = "eu-central-1" }   # of the store, as obstore names them

Its result is that of `receiver.handlers.archive.result`, for handlers with `after`. Beside the files
lies a manifest (`archive_manifest`), written last: where it is, all is there.

| what happens | what follows |
|---|---|
| no connection, it breaks off or is slow, 5xx, another status; no room or no access in `to` | again by the retry policy until the output has expired; a file goes on where it broke off |
| 429 or 503 with Retry-After | not before then, for every event of this handler |
| 404, 410; the file is empty, cut short or of a type that `types` does not name | again for 15 minutes, then never |
| a file larger than `max_size`; a private target that `allow` does not name; another file of that name | never again |
| killed, or the time limit is over | again; what is there already stays and is not fetched anew |

One run of an archive for one event: what is missing is fetched, then the manifest written.

From `to`, as a person writes it, to the root of an archive.
"""  # noqa: E501

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from receiver.errors import GiveUp, Refused, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.archive.download import BLOCK, Doubtful, Download
from receiver.handlers.archive.manifest import Kept, kept_in, manifest, progress
from receiver.handlers.archive.names import OF_EVENTS, Name, Template, of_event
from receiver.handlers.archive.result import Archived, result_of
from receiver.handlers.archive.storage import OURS, Root, Taken
from receiver.handlers.base import Context
from receiver.handlers.envelope import moment
from receiver.handlers.retry import describe
from receiver.handlers.settings import AllowedTargets, Bytes, Limit, SomeTexts, read
from receiver.outbound.client import check_url, client
from submitter.prediction import JSON, Status
from submitter.reconcile.schedule import KEPT

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


EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
SCHEMES = ("s3", "gs", "az")

Option = str | bool | int

# obstore tells these from the options of a store, and ends the thread over one in the wrong place.
_OF_CLIENTS = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("default_headers", "http1_only", "http2_keep_alive_interval", "http2_only"),
        *("http2_keep_alive_timeout", "http2_keep_alive_while_idle", "pool_idle_timeout"),
        *("pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes"),
        *("root_certificate", "randomize_addresses", "read_timeout", "timeout", "user_agent"),
    }
)
_CONNECT, _REQUEST = "10s", "120s"
_RETRIES, _RETRYING = 3, timedelta(seconds=30)


def check_place(text: str) -> str:
    """Return `to`, if it can be a place.

    Raises:
        ValueError: it cannot; the text says what was expected.
    """
    scheme, divider, _ = text.partition("://")
    if "\0" in text or not text.strip():
        raise ValueError(EXPECTED)
    if divider and scheme != "file":
        parts = urlsplit(text)
        if scheme not in SCHEMES or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(EXPECTED)
    elif divider and not re.match("file:///[^/]", text):
        raise ValueError(f"{EXPECTED}; a file URL has three slashes")
    return text


def open_root(to: str, options: Mapping[str, Option]) -> Root:
    """Make the root of an archive; a folder is made where there is none.

    Raises:
        ValueError: it cannot work; the text says which setting is to blame and what was expected.
    """
    if to.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        if "@" in urlsplit(to).netloc:
            raise ValueError("to: a user or password is in it, expected these in `options`")
        return _bucket(to, options)
    if options:
        raise ValueError("options: expected none, a folder has none")
    return _disk(to)


def _disk(to: str) -> Root:
    if os.open not in os.supports_dir_fd:
        raise ValueError(f"to: {to!r}, expected a bucket; this system has no safe way to folders")
    from receiver.handlers.archive.disk import Disk

    path = Path(unquote(urlsplit(to).path) if to.startswith("file://") else to)
    try:
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve(strict=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"to: {to!r}, expected a folder that can be made ({reason})") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise ValueError(f"to: {to!r}, expected a folder that can be written")
    return Disk(root)


def _bucket(to: str, options: Mapping[str, Option]) -> Root:
    try:
        from obstore.store import from_url

        from receiver.handlers.archive.bucket import Bucket, words
    except ImportError:
        install = "pip install 'wavehook[storage]'"
        raise ValueError(f"to: {to!r} needs the extra `storage`; install it: {install}") from None

    client: dict[str, Option] = {"connect_timeout": _CONNECT, "timeout": _REQUEST}
    if any(str(value).startswith("http://") for value in options.values()):
        client["allow_http"] = True
    client |= {key: value for key, value in options.items() if key in _OF_CLIENTS}
    config = {key: value for key, value in options.items() if key not in _OF_CLIENTS}
    try:
        store = from_url(  # type: ignore[call-overload] # a person's keys, which obstore checks
            to,
            config=config,
            client_options=client,
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRYING},
        )
    except Exception as error:  # noqa: BLE001 - errors of obstore are of several kinds
        text = words(error)
        for value in options.values():
            text = text.replace(str(value), "…")
        raise ValueError(f"options: expected those that obstore takes for {to} ({text})") from None
    return Bucket(store, to)


COMPLETED = f"prediction.{Status.COMPLETED}"

REDIRECTS = 5


def _name(text: str) -> str:
    fields = Template.parse(text).fields
    if not fields & {"index", "sha256"}:
        raise ValueError("{index} or {sha256} in it: a prediction may have several outputs")
    if not fields & {"task", "sha256"} and not any("." in field for field in fields):
        raise ValueError("{task}, {sha256} or a {context.KEY} in it: events must not share names")
    return text


def _manifest(text: str) -> str:
    if "task" not in Template.parse(text, OF_EVENTS).fields:
        raise ValueError("{task} in it: events must not share a manifest")
    return text


def _public_url(text: str) -> str:
    try:
        url = httpx.URL(text)
        check_url(url)
    except (httpx.InvalidURL, Refused):
        url = None
    if url is None or url.query or url.fragment:
        raise ValueError("an http or https URL without a query, such as https://cdn.example/made")
    return text.rstrip("/")


class Settings(BaseModel):
    """The handler's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Annotated[str, AfterValidator(check_place)] = Field(description=EXPECTED)
    name: Annotated[str, AfterValidator(_name)] = "{date}/{task}/{index}{ext}"
    manifest: Annotated[str, AfterValidator(_manifest)] = "{date}/{task}/manifest.json"
    types: SomeTexts = ("image/*", "video/*", "audio/*", "model/*")
    max_size: Annotated[Bytes, Field(gt=0)] = 500 * 10**6
    expires: Limit = KEPT
    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    allow: AllowedTargets = ()
    options: dict[str, Option] = Field(default_factory=dict, repr=False)


class Archive:
    """Keeps outputs, over connections that are kept too.

    Attributes:
        rules: of running it, where its section has no others: an output takes its time, and is
            tried for as long as it can be had.
    """

    rules: ClassVar[Mapping[str, Any]] = {
        "on": COMPLETED,
        "timeout": "30m",
        "concurrency": 4,
        "retry": {"attempts": 1000, "base": "5s", "cap": "1h"},
    }

    def __init__(
        self, settings: Settings, root: Root, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._root = root
        self._clock = clock
        self._plan = Plan(
            root,
            Template.parse(settings.name),
            Template.parse(settings.manifest, OF_EVENTS),
            Download(settings.types, settings.max_size, clock=clock),
            settings.expires,
        )
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON] | None:
        """Keep the outputs. See the module's docstring for what each fault means."""
        outputs = event.prediction.outputs if event.prediction else ()
        if event.type != COMPLETED or not any(map(_is_url, outputs)):
            return None
        run = Run(self._plan, self._open(), event, context, self._clock)
        urls = {index: url for index, url in enumerate(outputs) if _is_url(url)}
        kept = await run(urls, len(outputs))
        return result_of(
            [
                Archived(
                    each.source, each.name, self._url(each.name), each.size, each.sha256, each.type
                )
                for each in kept
            ]
        )

    async def check(self) -> str:
        """Write, read and remove a small file."""
        return await self._root.check()

    async def close(self) -> None:
        """Let the connections go; the next event makes new ones."""
        if self._client is not None:
            closing, self._client = self._client, None
            await closing.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            settings = self._settings
            # A little more, so that it is the file that is told to be too large.
            most = settings.max_size + BLOCK
            self._client = client(settings.allow, redirects=REDIRECTS, max_body=most)
        return self._client

    def _url(self, name: str) -> str | None:
        base = self._settings.public_url
        return None if base is None else f"{base}/{quote(name)}"


def create(name: str, settings: Mapping[str, Any]) -> Archive:
    """Make the handler, and the folder where it keeps files in one that is not there.

    Raises:
        SettingsError: with all faults.
    """
    chosen = read(Settings, name, settings)
    try:
        return Archive(chosen, open_root(chosen.to, chosen.options))
    except ValueError as error:
        raise SettingsError([f"handlers.{name}.{error}"]) from None


def _is_url(output: str) -> bool:
    """Whether an output is a file; some models give texts, which are in the manifest."""
    return output[:8].lower().startswith(("http://", "https://"))
