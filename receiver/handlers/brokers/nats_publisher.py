"""A connection to NATS, and the acknowledgements of streams that are awaited on it.

Imported where a handler connects: it needs the extra `nats`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, MaxPayloadError
from nats.js.errors import APIError, NotFoundError

from receiver.errors import GiveUp, Retry
from receiver.handlers.brokers.cloudevent import Message
from receiver.handlers.brokers.connection import CONNECT, HEARTBEAT, reason
from submitter.prediction import JSON

WINDOW = 15 * 60
"""Seconds within which a stream that we made knows an event again: longer than the longest wait
between two attempts, unless the settings say otherwise."""

TOO_LARGE = 10054
"""https://github.com/nats-io/nats-server/blob/main/server/errors.json"""


class Publisher:
    """One connection. All acknowledgements come to one inbox of its own, told apart by a number.

    Args:
        where: which server, for errors; no secret in it.
        stream: the only one whose acknowledgement counts; None for any.
        lost: called once the connection is gone.
    """

    def __init__(self, where: str, stream: str | None, lost: Callable[[Publisher], None]) -> None:
        self._where = where
        self._expected = {"Nats-Expected-Stream": stream} if stream else {}
        self._lost = lost
        self._client = Client()
        self._inbox = self._client.new_inbox()
        self._numbers = count()
        self._awaited: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    async def open(self, urls: Sequence[str], tls: ssl.SSLContext | None) -> None:
        """Connect to one of these, and listen for acknowledgements.

        Raises:
            Retry: there is no connection.
        """
        options: dict[str, Any] = {} if tls is None else {"tls": tls}
        try:
            await self._client.connect(
                list(urls),
                name="wavehook",
                # A connection that broke is replaced by the next event's, not by the client.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CONNECT / 2),
                ping_interval=HEARTBEAT,
                # Nothing is kept for a connection to come: its event will be sent again.
                pending_size=0,
                error_cb=self._told,
                closed_cb=self._closed,
                **options,
            )
            await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        except (Error, OSError) as error:
            raise Retry(f"{self._where}: {_words(error)}") from None

    async def create(self, stream: str, subjects: str) -> None:
        """Make a stream where it is not there; one that is there stays as it is.

        Raises:
            Retry: it cannot be made.
        """
        manager = self._client.jetstream()
        try:
            try:
                await manager.stream_info(stream)
            except NotFoundError:
                await manager.add_stream(name=stream, subjects=[subjects], duplicate_window=WINDOW)
        except Error as error:
            words = error.description if isinstance(error, APIError) else _words(error)
            raise Retry(f"{self._where}: the stream {stream} cannot be made ({words})") from None

    async def stream_of(self, subject: str) -> str | None:
        """The stream that takes a subject, where there is one.

        Raises:
            Retry: there is nobody to ask.
        """
        try:
            return await self._client.jetstream().find_stream_name_by_subject(subject)
        except NotFoundError:
            return None
        except Error as error:
            raise Retry(f"{self._where}: JetStream does not answer ({_words(error)})") from None

    async def publish(self, subject: str, message: Message, key: str) -> dict[str, JSON]:
        """Send a message, and wait until a stream has it.

        Args:
            subject: where to.
            message: what.
            key: the same for the same message, for the stream to know it again.

        Raises:
            Retry: it was not confirmed.
            GiveUp: it is too large.
        """
        headers = {"Nats-Msg-Id": key, "content-type": message.content_type, **self._expected}
        for name, value in message.attributes.items():
            # As in HTTP; all that is not visible ASCII is encoded already. https://github.com/
            # cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
            headers[f"ce-{name}"] = value.replace("%", "%25")
        try:
            return self._read(await self._ask(subject, message.body, headers), subject)
        except MaxPayloadError:
            size = len(message.body)
            raise GiveUp(f"{self._where}: {size} bytes are more than its max_payload") from None
        except (Error, OSError) as error:
            raise Retry(f"{self._where}: {_words(error)}") from None

    async def close(self) -> None:
        """End it."""
        await self._client.close()

    async def _ask(self, subject: str, body: bytes, headers: dict[str, str]) -> Msg:
        number = str(next(self._numbers))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._awaited[number] = (subject, future)
        try:
            await self._client.publish(subject, body, f"{self._inbox}.{number}", headers)
            return await future
        finally:
            del self._awaited[number]

    def _read(self, answer: Msg, subject: str) -> dict[str, JSON]:
        if answer.headers and answer.headers.get("Status") == "503":
            raise Retry(self.no_stream(subject))
        found = _object(answer.data)
        if isinstance(fault := found.get("error"), dict):
            text = f"{self._where}: {fault.get('description')} ({fault.get('err_code')})"
            raise GiveUp(text) if fault.get("err_code") == TOO_LARGE else Retry(text)
        if not (isinstance(found.get("stream"), str) and isinstance(found.get("seq"), int)):
            raise Retry(f"{self._where}: what answers on {subject} is no stream")
        return {key: found.get(key, False) for key in ("stream", "seq", "duplicate")}

    def no_stream(self, subject: str) -> str:
        """What to do where no stream takes a subject."""
        return (
            f"{self._where}: no stream takes {subject}; make one that does, or set "
            "`stream` and `create_stream = true`"
        )

    async def _acknowledged(self, message: Msg) -> None:
        _, future = self._awaited.get(message.subject.rpartition(".")[2], (None, None))
        if future is not None and not future.done():
            future.set_result(message)

    async def _closed(self) -> None:
        self._fail(Retry(f"{self._where}: the connection broke"))
        self._lost(self)

    async def _told(self, error: Exception) -> None:
        """The client has something to tell; what concerns one subject fails who sends to it."""
        text = str(error).lower()
        if "permissions violation for publish" in text:
            for subject in {subject for subject, _ in self._awaited.values()}:
                if f'"{subject.lower()}"' in text:
                    self._fail(Retry(f"{self._where}: we may not publish to {subject}"), subject)

    def _fail(self, error: Retry, of: str | None = None) -> None:
        for subject, future in self._awaited.values():
            if of in (None, subject) and not future.done():
                future.set_exception(error)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(error: BaseException) -> str:
    """NATS's own errors say what is wrong in words without addresses; others are named."""
    return str(error).removeprefix("nats: ") if isinstance(error, Error) else reason(error)
