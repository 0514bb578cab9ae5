"""Entry point of Vercel's Python runtime: an ASGI app named `app`."""

from receiver.web.asgi import app

__all__ = ["app"]
