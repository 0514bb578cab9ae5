"""`archive` handler: keeps every output of a completed prediction; the API deletes it after 7 days.

    [handlers.keep]
    use = "archive"
    to = "s3://videos/made"                 # or a folder, gs://…, az://…
    name = "{date}/{task}/{index}{ext}"
    public_url = "https://cdn.example/made"
    options = { region = "eu-central-1" }   # of the bucket, as obstore names them

Its result is that of `receiver.handlers.archive.result`, for handlers with `after`. A manifest
(`receiver.handlers.archive.manifest`) is written beside the files, after all of them.

| fault | outcome |
|---|---|
| no connection, a broken or slow one, 5xx or another status | retry until the output has expired |
| no room in `to`, or no access to it | retry until the output has expired |
| 429 or 503 with Retry-After | retry at that time; no event of this handler before |
| 404 or 410; a file that is empty, cut short or not of `types` | retry for 15 minutes, then dead |
| a file over `max_size`; a private target not in `allow`; a name that another file has | dead |
| the process is killed, or the timeout is over | retry; finished files are not downloaded again |

A download that broke off is resumed.
"""

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
from receiver.handlers.archive.download import BLOCK_BYTES, Download, RetryBriefly
from receiver.handlers.archive.manifest import StoredOutput, manifest, progress, stored_outputs
from receiver.handlers.archive.names import EVENT_FIELDS, NameTemplate, OutputName, event_values
from receiver.handlers.archive.result import ArchivedFile, result_of
from receiver.handlers.archive.storage import PRIVATE_FOLDER, ArchiveStorage, NameTaken
from receiver.handlers.base import Context
from receiver.handlers.retry import describe
from receiver.handlers.settings import AllowedTargets, Bytes, PositiveSeconds, SomeTexts, read
from receiver.outbound.client import LazyClient, check_url
from submitter.prediction import JSON, Status
from submitter.reconcile.schedule import API_RETENTION_S
from submitter.timestamps import rfc3339_clamped

COMPLETED = f"prediction.{Status.COMPLETED}"

MAX_CONCURRENT_DOWNLOADS = 4
"""Concurrent downloads of one event."""

MAX_REDIRECTS = 5

BRIEF_RETRY_S = 900.0
"""Seconds after an event in which a missing or damaged output is tried again."""

TO_EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
BUCKET_SCHEMES = ("s3", "gs", "az")

Option = str | bool | int


def _to(text: str) -> str:
    scheme, divider, _ = text.partition("://")
    if "\0" in text or not text.strip():
        raise ValueError(TO_EXPECTED)
    if divider and scheme != "file":
        parts = urlsplit(text)
        if scheme not in BUCKET_SCHEMES or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(TO_EXPECTED)
    elif divider and not re.match("file:///[^/]", text):
        raise ValueError(f"{TO_EXPECTED}; a file URL has three slashes")
    return text


def _name(text: str) -> str:
    fields = NameTemplate.parse(text).fields
    if not fields & {"index", "sha256"}:
        raise ValueError("{index} or {sha256} in it: a prediction may have several outputs")
    if not fields & {"task", "sha256"} and not any("." in field for field in fields):
        raise ValueError("{task}, {sha256} or a {context.KEY} in it: events must not share names")
    return text


def _manifest(text: str) -> str:
    if "task" not in NameTemplate.parse(text, EVENT_FIELDS).fields:
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


class ArchiveSettings(BaseModel):
    """Settings of the handler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Annotated[str, AfterValidator(_to)] = Field(description=TO_EXPECTED)
    name: Annotated[str, AfterValidator(_name)] = "{date}/{task}/{index}{ext}"
    manifest: Annotated[str, AfterValidator(_manifest)] = "{date}/{task}/manifest.json"
    types: SomeTexts = ("image/*", "video/*", "audio/*", "model/*")
    max_size: Annotated[Bytes, Field(gt=0)] = 500 * 10**6
    expires: PositiveSeconds = API_RETENTION_S
    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    allow: AllowedTargets = ()
    options: dict[str, Option] = Field(default_factory=dict, repr=False)


def create(name: str, settings: Mapping[str, Any]) -> Archive:
    """Build the handler, and create its folder.

    Raises:
        SettingsError: with all faults.
    """
    parsed = read(ArchiveSettings, name, settings)
    try:
        return Archive(parsed, open_storage(parsed.to, parsed.options))
    except ValueError as error:
        raise SettingsError([f"handlers.{name}.{error}"]) from None


class Archive:
    """Handler that keeps the outputs of an event.

    Attributes:
        rules: defaults for running it: a download takes its time, and is retried for as long as the
            API keeps the output.
    """

    rules: ClassVar[Mapping[str, Any]] = {
        "on": COMPLETED,
        "timeout": "30m",
        "concurrency": 4,
        "retry": {"attempts": 1000, "base": "5s", "cap": "1h"},
    }

    def __init__(
        self,
        settings: ArchiveSettings,
        storage: ArchiveStorage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._plan = ArchivePlan(
            storage,
            NameTemplate.parse(settings.name),
            NameTemplate.parse(settings.manifest, EVENT_FIELDS),
            Download(settings.types, settings.max_size, clock=clock),
            settings.expires,
        )
        # One block more than max_size, so that the error names max_size and not the body.
        self._client = LazyClient(
            settings.allow, redirects=MAX_REDIRECTS, max_body=settings.max_size + BLOCK_BYTES
        )

    async def __call__(self, event: Event, context: Context) -> dict[str, JSON] | None:
        """Keep the outputs; the module's docstring says what each fault means."""
        outputs = event.prediction.outputs if event.prediction else ()
        # Some models output text, which the manifest's event has.
        urls = {index: output for index, output in enumerate(outputs) if _is_url(output)}
        if event.type != COMPLETED or not urls:
            return None
        run = ArchiveRun(self._plan, self._client.open(), event, context, self._clock)
        stored = await run(urls, len(outputs))
        return result_of(
            [
                ArchivedFile(
                    each.source, each.name, self._url(each.name), each.size, each.sha256, each.type
                )
                for each in stored
            ]
        )

    async def check(self) -> str:
        """Write, read and remove a small file."""
        return await self._plan.storage.check()

    async def close(self) -> None:
        """Close the HTTP client; the next event opens a new one."""
        await self._client.close()

    def _url(self, name: str) -> str | None:
        base = self._settings.public_url
        return None if base is None else f"{base}/{quote(name)}"


def _is_url(output: str) -> bool:
    return output[:8].lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """Parts of an archive that all events share.

    Attributes:
        storage: keeps the files.
        name: template of an output's name.
        manifest: template of the manifest's name.
        download: downloads one output.
        expires: seconds after a task's end for which the API keeps its outputs.
    """

    storage: ArchiveStorage
    name: NameTemplate
    manifest: NameTemplate
    download: Download
    expires: float


class ArchiveRun:
    """One attempt at one event: downloads the missing outputs, then writes the manifest.

    It goes on where the attempt before it ended.
    """

    def __init__(
        self,
        plan: ArchivePlan,
        client: httpx.AsyncClient,
        event: Event,
        context: Context,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._storage = plan.storage
        self._client = client
        self._event = event
        self._clock = clock
        left = context.deadline - clock()
        # The last seconds are for an orderly end, which leaves more to the next attempt.
        self._until = asyncio.get_running_loop().time() + left - min(5.0, left / 10)
        self._key = hashlib.sha256(context.key.encode(errors="surrogatepass")).hexdigest()[:32]
        self._progress_name = f"{PRIVATE_FOLDER}/{self._key}.json"
        self._values = event_values(plan.name, event)
        self._stored: dict[int, StoredOutput] = {}
        self._writing_progress = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_DOWNLOADS)

    async def __call__(self, urls: Mapping[int, str], count: int) -> list[StoredOutput]:
        """Keep these outputs.

        Args:
            urls: by index among the outputs.
            count: number of outputs, including those that are not files.

        Raises:
            Retry: an output failed for now.
            GiveUp: outputs failed for good, and no other is left to retry.
        """
        try:
            return await self._keep_all(urls, count)
        except GiveUp:
            raise
        except Exception as error:  # noqa: BLE001 - any fault is retried until the output expires
            raise self._failure({"": error}) from None

    async def _keep_all(self, urls: Mapping[int, str], count: int) -> list[StoredOutput]:
        name = self._plan.manifest.fill(event_values(self._plan.manifest, self._event))
        before = stored_outputs(await self._storage.read(name), self._event)
        if before is None:
            raise GiveUp(
                "another event's manifest has its name; expected a `manifest` that differs"
            )
        recorded = []
        if not before:
            progress_file = await self._storage.read(self._progress_name)
            recorded = stored_outputs(progress_file, self._event) or []
        for each in (*before, *recorded):
            if urls.get(each.index) == each.source and await self._is_there(each):
                self._stored[each.index] = each
        missing = {index: url for index, url in urls.items() if index not in self._stored}
        errors = await self._download_all(missing)
        if errors:
            failure = self._failure(
                {f"output {index + 1} of {count}: ": each for index, each in errors.items()}
            )
            if isinstance(failure, GiveUp):
                for index in errors:
                    await self._storage.forget(self._file_key(index))
            raise failure
        stored = [self._stored[index] for index in sorted(urls)]
        if missing or not before:
            await self._storage.write(name, manifest(self._event, stored, self._clock()))
        if recorded or len(missing) > 1:
            await self._storage.remove(self._progress_name)
        return stored

    async def _is_there(self, output: StoredOutput) -> bool:
        return await self._storage.size(output.name) == output.size

    async def _download_all(self, missing: Mapping[int, str]) -> dict[int, Exception]:
        """Download outputs concurrently; one that fails stops no other."""
        jobs = [
            self._try_one(index, url, alone=len(missing) == 1) for index, url in missing.items()
        ]
        errors = await asyncio.gather(*jobs)
        return {
            index: error for index, error in zip(missing, errors, strict=True) if error is not None
        }

    async def _try_one(self, index: int, url: str, *, alone: bool) -> Exception | None:
        async with self._slots:
            try:
                await self._keep(index, url)
                if not alone:
                    async with self._writing_progress:
                        record = progress(self._event, self._stored.values())
                        await self._storage.write(self._progress_name, record)
            except Exception as error:  # noqa: BLE001 - the error of one output among several
                return error
        return None

    async def _keep(self, index: int, url: str) -> None:
        name = OutputName(self._plan.name, {**self._values, "index": str(index)})
        file = await self._storage.partial_file(self._file_key(index), name)
        try:
            await self._plan.download.fetch(self._client, url, file, self._until)
            final_name = await file.keep()
        except NameTaken:
            raise GiveUp("another file has its name; expected a `name` that differs") from None
        finally:
            await file.close()
        content = file.content
        self._stored[index] = StoredOutput(
            index,
            url,
            final_name,
            content.size,
            content.sha256,
            content.kind.content_type,
            rfc3339_clamped(self._clock()),
        )

    def _file_key(self, index: int) -> str:
        return f"{self._key}-{index}"

    def _failure(self, errors: Mapping[str, Exception]) -> GiveUp | Retry:
        """Combine errors, each with its prefix, into the outcome of the attempt."""
        event, now = self._event, self._clock()
        expired = now > (event.occurred_at or event.received_at) + self._plan.expires
        brief_over = now > event.received_at + BRIEF_RETRY_S
        text = "; ".join(f"{prefix}{_described(error)}" for prefix, error in errors.items())
        temporary = [
            error
            for error in errors.values()
            if not (isinstance(error, GiveUp) or (brief_over and isinstance(error, RetryBriefly)))
        ]
        if expired or not temporary:
            return GiveUp(f"{text}; the outputs have expired" if expired else text)
        retries = [error for error in temporary if isinstance(error, Retry)]
        after = max((error.after for error in retries if error.after is not None), default=None)
        return Retry(text, after=after, pause=any(error.pause for error in retries))


def _described(error: Exception) -> str:
    """An error in one line, without file names, which may be private."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return describe(error)


# obstore tells these from the options of a store; an option in the wrong place aborts its thread.
_CLIENT_OPTIONS = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("default_headers", "http1_only", "http2_keep_alive_interval", "http2_only"),
        *("http2_keep_alive_timeout", "http2_keep_alive_while_idle", "pool_idle_timeout"),
        *("pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes"),
        *("root_certificate", "randomize_addresses", "read_timeout", "timeout", "user_agent"),
    }
)
_BUCKET_TIMEOUTS: Mapping[str, Option] = {"connect_timeout": "10s", "timeout": "120s"}
_BUCKET_RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


def open_storage(to: str, options: Mapping[str, Option]) -> ArchiveStorage:
    """Open the storage that `to` names; a folder is created if it does not exist.

    Raises:
        ValueError: the text begins with the setting to blame, and says what was expected.
    """
    if to.startswith(tuple(f"{scheme}://" for scheme in BUCKET_SCHEMES)):
        if "@" in urlsplit(to).netloc:
            raise ValueError("to: it contains a user or password; put these into `options`")
        return _open_bucket(to, options)
    if options:
        raise ValueError("options: expected none, because `to` is a folder")
    return _open_folder(to)


def _open_folder(to: str) -> ArchiveStorage:
    if os.open not in os.supports_dir_fd:
        raise ValueError(
            f"to: {to!r}, expected a bucket: this system cannot open files relative to a folder"
        )
    from receiver.handlers.archive.disk import DiskStorage

    path = Path(unquote(urlsplit(to).path) if to.startswith("file://") else to)
    try:
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve(strict=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"to: {to!r}, expected a folder that can be made ({reason})") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise ValueError(f"to: {to!r}, expected a folder that can be written")
    return DiskStorage(root)


def _open_bucket(to: str, options: Mapping[str, Option]) -> ArchiveStorage:
    try:
        from obstore.store import from_url

        from receiver.handlers.archive.bucket import BucketStorage, described
    except ImportError:
        install = "pip install 'wavehook[storage]'"
        raise ValueError(f"to: {to!r} needs the extra `storage`; install it: {install}") from None

    client_options = dict(_BUCKET_TIMEOUTS)
    if any(str(value).startswith("http://") for value in options.values()):
        client_options["allow_http"] = True
    client_options |= {key: value for key, value in options.items() if key in _CLIENT_OPTIONS}
    config = {key: value for key, value in options.items() if key not in _CLIENT_OPTIONS}
    try:
        store = from_url(  # type: ignore[call-overload] # the user's keys; obstore checks them
            to,
            config=config,
            client_options=client_options,
            retry_config=_BUCKET_RETRIES,
        )
    except Exception as error:  # noqa: BLE001 - obstore raises errors of several kinds
        text = described(error)
        for value in options.values():
            text = text.replace(str(value), "…")
        raise ValueError(f"options: expected those that obstore takes for {to} ({text})") from None
    return BucketStorage(store, to)
