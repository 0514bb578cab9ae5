"""`archive`: keeps every output of a completed prediction; the API has them for 7 days.

    [handlers.keep]
    use = "archive"
    to = "s3://videos/made"                 # or a folder, gs://…, az://…
    name = "{date}/{task}/{index}{ext}"
    public_url = "https://cdn.example/made"
    options = { region = "eu-central-1" }   # of the store, as obstore names them

Its result is that of `receiver.handlers.archived`, for handlers with `after`. Beside the files
lies a manifest (`archive_manifest`), written last: where it is, all is there.

| what happens | what follows |
|---|---|
| no connection, it breaks off or is slow, 5xx, another status; no room or no access in `to` | again by the retry policy until the output has expired; a file goes on where it broke off |
| 429 or 503 with Retry-After | not before then, for every event of this handler |
| 404, 410; the file is empty, cut short or of a type that `types` does not name | again for 15 minutes, then never |
| a file larger than `max_size`; a private target that `allow` does not name; another file of that name | never again |
| killed, or the time limit is over | again; what is there already stays and is not fetched anew |
"""  # noqa: E501 - the README has the same table

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from receiver.addresses import Allowed
from receiver.errors import Refused, SettingsError
from receiver.event import Event
from receiver.handlers.archive_download import BLOCK, Download
from receiver.handlers.archive_names import OF_EVENTS, Template
from receiver.handlers.archive_place import EXPECTED, Option, check_place, open_root
from receiver.handlers.archive_root import Root
from receiver.handlers.archive_run import Plan, Run
from receiver.handlers.archived import Archived, result_of
from receiver.handlers.base import Context
from receiver.handlers.settings import Limit, SomeTexts, Texts, read
from receiver.safe_http import check_url, client
from receiver.units import size
from submitter.prediction import JSON, Status
from submitter.schedule import KEPT

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


def _allow(entries: tuple[str, ...]) -> tuple[str, ...]:
    Allowed.parse(entries)
    return entries


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
    max_size: Annotated[int, BeforeValidator(size), Field(gt=0)] = 500 * 10**6
    expires: Limit = KEPT
    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    allow: Annotated[Texts, AfterValidator(_allow)] = ()
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
