"""Files over HTTP: results, a first frame, and uploads."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from submitter.prediction import JSON, Status
from submitter.simulator import media
from submitter.simulator.answers import refusal, success
from submitter.simulator.calls import Call, Kind
from submitter.simulator.checks import BadRequest, read_object, text, whole
from submitter.simulator.uploads import MOST, Refused
from submitter.simulator.world import World, seconds

_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


class Files:
    """Gives and takes files; none of it asks for a key but the announcement of an upload."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def first_frame(self, request: Request) -> Response:  # noqa: ARG002
        """A picture that the models take."""
        return Response(media.png(), media_type="image/png")

    async def output(self, request: Request) -> Response:
        """What a task made."""
        now = self._world.clock()
        task = self._world.book.find(request.path_params["id"], now)
        if task is None or task.status(now) != Status.COMPLETED:
            return refusal(404, "No such file; outputs exist from completion on, for 7 days")
        return Response(media.mp4(seconds(task.input)), media_type="video/mp4")

    async def announce(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Make a place for an upload."""
        world, query = self._world, read_object(await request.body())
        content_type = query.get("content_type") or "application/octet-stream"
        if not (isinstance(content_type, str) and _CONTENT_TYPE.fullmatch(content_type)):
            raise BadRequest("content_type: must be a type such as image/png")
        filename, size = text(query, "filename"), whole(query, "size", MOST)
        upload = world.uploads.announce(filename, size, content_type, world.clock())
        url = f"{world.url}/uploads/{upload.name}"
        put: dict[str, JSON] = {
            "method": "PUT",
            "url": f"{url}?signature={upload.signature}",
            "headers": dict(upload.headers),
        }
        return success({"upload": put, "download_url": url})

    async def put(self, request: Request) -> Response:
        """Take an upload's bytes; answers as a storage service does."""
        world = self._world
        world.calls.received(Kind.PUT)
        upload = world.uploads.find(request.path_params["name"], world.clock())
        if upload is None:
            return _storage_error(404, "There is no such upload")
        signature, body = request.query_params.get("signature", ""), request.stream()
        try:
            await world.uploads.put(upload, signature, request.headers, body)
        except Refused as error:
            await _pass_over(body)
            return _storage_error(error.status, str(error))
        except ClientDisconnect:
            pass  # Nobody is there to read the answer.
        return Response()

    async def upload(self, request: Request) -> Response:
        """Give an upload's bytes back."""
        upload = self._world.uploads.find(request.path_params["name"], self._world.clock())
        if upload is None or upload.path is None:
            return refusal(404, "No such file; uploads are kept for 7 days")
        return FileResponse(upload.path, media_type=upload.content_type)


async def _pass_over(body: AsyncIterator[bytes]) -> None:
    """Read what is left: who is still sending would not see the answer."""
    with contextlib.suppress(ClientDisconnect):
        async for _ in body:
            pass


def _storage_error(status: int, reason: str) -> Response:
    body = f"<Error><Message>{reason}</Message></Error>"
    return Response(body, status, {"Connection": "close"}, "application/xml")
