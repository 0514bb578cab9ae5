"""What everything is measured against: a bare Starlette route that reads the body, answers 204.

Served as `wavehook serve` serves: the same server, the same of its settings.
"""

from __future__ import annotations

import argparse

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def take(request: Request) -> Response:
    await request.body()
    return Response(status_code=204)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        Starlette(routes=[Route("/webhooks/{source}", take, methods=["POST"])]),
        port=parser.parse_args().port,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
