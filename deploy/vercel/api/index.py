"""What Vercel's Python runtime looks for: an ASGI app named `app`."""

from receiver.web.asgi import app

__all__ = ["app"]
