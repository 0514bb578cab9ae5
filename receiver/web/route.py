"""The route of deliveries: as Starlette's, without a regular expression for each of them."""

from __future__ import annotations

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope


class SegmentRoute(Route):
    """A route of a fixed prefix and named segments, each of them one or more characters.

    Args:
        prefix: such as `/webhooks/`.
        names: of the segments that follow it.
        endpoint: an ASGI app; gets the segments as `path_params`. Takes POST only.
    """

    def __init__(self, prefix: str, names: tuple[str, ...], endpoint: ASGIApp) -> None:
        path = prefix + "/".join(f"{{{name}}}" for name in names)
        super().__init__(path, endpoint, methods=["POST"])
        self._prefix = prefix
        self._names = names

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `starlette.routing.Route.matches`."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path.startswith(self._prefix):
                parts = path[len(self._prefix) :].split("/")
                if len(parts) == len(self._names) and all(parts):
                    params = dict(zip(self._names, parts, strict=True))
                    found = {"endpoint": self.endpoint, "path_params": params}
                    return Match.FULL if scope["method"] == "POST" else Match.PARTIAL, found
        return Match.NONE, {}
