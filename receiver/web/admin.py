"""Who may use `/api`: whoever shows the admin token."""

from __future__ import annotations

from hmac import compare_digest

from starlette.exceptions import HTTPException
from starlette.requests import Request


class Admin:
    """Lets in by the token.

    Args:
        token: of the settings.
    """

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("token: expected text; an empty one would let everybody in")
        self._token = token.encode()

    def admit(self, request: Request) -> None:
        """Let a request in, or refuse it with 401."""
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        if not (scheme.lower() == b"bearer" and compare_digest(token.strip(), self._token)):
            title = "Expected the header Authorization: Bearer, with the receiver's admin token"
            raise HTTPException(401, title, {"www-authenticate": "Bearer"})
