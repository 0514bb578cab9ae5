"""The outermost layer: ids, one line a request, and answers to faults."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from receiver.telemetry.log import configure
from submitter.submit.context_token import Seal
from tests.support.asgi import (
    BODY,
    EVENT_ID,
    NOW,
    PATH,
    SECRET,
    Connection,
    Log,
    post,
    request,
    scope,
    serve,
    signature,
    signed,
)

Build = Callable[..., Starlette]


async def test_a_delivery_leaves_one_line(app: Starlette, log: Log) -> None:
    """One line says what a request was and what became of it."""
    await post(app)

    (line,) = log.lines()
    assert line.pop("timestamp").endswith("Z")
    assert 0 < line.pop("ms") < 1000
    assert len(line.pop("request_id")) == 16
    assert line == {
        "level": "info",
        "event": "request.served",
        "method": "POST",
        "route": "/webhooks/{source}",
        "status": 202,
        "bytes": len(f'{{"id": "{EVENT_ID}", "duplicate": false}}'),
        "received": len(BODY),
        "source": "wavespeed",
        "result": "new",
        "event_id": EVENT_ID,
        "type": "prediction.completed",
    }


async def test_a_line_below_the_level_is_not_written(build: Build) -> None:
    """Whoever asks for warnings hears of no request that went well."""
    stream = io.StringIO()
    configure(stream, "warning")
    app = build()

    await request(app, "/livez", method="GET")

    assert stream.getvalue() == ""


async def test_a_person_reads_the_same_line_as_text(build: Build) -> None:
    """F17: on a terminal too there is one line a request, and control characters are escaped."""
    stream = io.StringIO()
    configure(stream, json=False)
    app = build()

    await request(app, f"{PATH}/\x1b[31m", [(b"x-request-id", b"abc")], [BODY])

    (line,) = stream.getvalue().splitlines()
    assert "request.served" in line
    assert "route=/webhooks/{source}/{token}" in line
    assert "request_id=abc" in line
    assert line.isprintable()


async def test_no_line_holds_what_is_secret(app: Starlette, log: Log, seal: Seal) -> None:
    """F16: neither body, token, query, signature nor secret is logged, whatever the answer."""
    body = BODY[:-1] + b', "input": {"prompt": "a lighthouse at dusk"}}'
    token = seal.seal({"who": "somebody"}, model=None, now=NOW)
    query = b"key=query-secret"
    for path in (PATH, f"{PATH}/{token}", f"{PATH}/wrong-{token}", "/webhooks/nobody/some-token"):
        await request(app, path, signed(body), [body], query_string=query)
        await request(app, path, [], [body], query_string=query)
        await request(app, path, method="GET", query_string=query)

    assert len(log.lines("request.served")) == 12
    digest = signature(body, "msg-1", NOW, SECRET)
    for secret in (token, "lighthouse", "query-secret", digest, SECRET[6:], "some-token"):
        assert secret not in log.text


async def test_what_a_stranger_names_is_bounded_and_escaped(app: Starlette, log: Log) -> None:
    """F17: control characters and megabytes in paths, methods and headers stay out of the log."""
    odd = "\r\n\x1b[31m\u2028" + "x" * 100_000
    headers = [(b"x-request-id", odd.encode()), (b"webhook-id", odd.encode())]
    for path in (f"/webhooks/{odd}", f"{PATH}/{odd}", f"/{odd}"):
        await request(app, path, headers, [BODY], method="POST")
        await request(app, path, headers, [BODY], method="M" * 10_000)

    assert len(log.text) < 6 * 1000
    assert log.text.replace("\n", "").isprintable()


@pytest.mark.parametrize("given", [b"abc-123", b"x" * 64, b'with "quotes"'])
async def test_a_short_printable_request_id_is_taken_over(
    app: Starlette, log: Log, given: bytes
) -> None:
    """A request that comes with an id keeps it: in the answer, in the problem and in the log."""
    answer = await request(app, headers=[(b"x-request-id", given)], chunks=[BODY])

    assert answer.header(b"x-request-id") == given
    assert answer.json["request_id"] == given.decode()
    assert log.line("request.served")["request_id"] == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a\tb", b"\xff", b"a\r\nset-cookie: x"])
async def test_another_request_id_is_replaced(app: Starlette, given: bytes) -> None:
    """F17: an id that could do harm is not repeated."""
    answer = await request(app, headers=[(b"x-request-id", given)], chunks=[BODY])

    generated = answer.header(b"x-request-id")
    assert generated is not None
    assert generated != given
    assert len(generated) == 16


@pytest.mark.parametrize(
    ("path", "method", "route", "status"),
    [
        ("/nowhere", "POST", None, 404),
        (PATH, "GET", "/webhooks/{source}", 405),
        (f"{PATH}/t", "POST", "/webhooks/{source}/{token}", 401),
        ("/livez", "GET", "/livez", 200),
    ],
)
async def test_a_line_names_the_template_of_the_route(
    app: Starlette, log: Log, path: str, method: str, route: str | None, status: int
) -> None:
    """F16, F17: the path itself, which may hold a token, is never logged."""
    await request(app, path, method=method)

    line = log.line("request.served")
    assert (line["method"], line["route"], line["status"]) == (method, route, status)


async def _broken(request: Request) -> Response:
    raise ValueError((await request.body()).decode())


async def _refusing(_: Request) -> Response:
    raise HTTPException(403, "Not from here", {"X-Why": "origin"})


async def _cut(_: Request) -> Response:
    async def parts() -> object:
        yield b"first"
        raise ValueError("a prompt")

    return StreamingResponse(parts())  # type: ignore[arg-type]


class _Late:
    """Refuses after it has begun to answer."""

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        raise HTTPException(400)


@pytest.fixture
def more(build: Build) -> Starlette:
    """An app with endpoints of somebody else's."""
    return build(
        routes=[
            Route("/broken", _broken),
            Route("/refusing", _refusing),
            Route("/cut", _cut),
            Route("/late", _Late()),
            Route("/plain", lambda _: PlainTextResponse("hello")),
        ]
    )


async def test_a_fault_elsewhere_is_a_500_that_says_nothing(more: Starlette, log: Log) -> None:
    """F16: another endpoint's fault is logged with its place, and told to nobody."""
    answer = await request(more, "/broken", chunks=[b"a prompt"], method="GET")

    assert answer.status == 500
    assert answer.header(b"content-type") == b"application/problem+json"
    line = log.line("request.failed")
    assert (line["error"], line["request_id"]) == ("ValueError", answer.json["request_id"])
    assert "_broken" in line["stack"]
    assert "prompt" not in log.text + answer.body.decode()


async def test_a_refusal_elsewhere_is_a_problem_with_its_headers(more: Starlette) -> None:
    """Every endpoint's HTTPException comes out in the one form."""
    answer = await request(more, "/refusing", method="GET")

    assert answer.status == 403
    assert answer.json["title"] == "Not from here"
    assert answer.json["type"] == "about:blank"
    assert answer.header(b"x-why") == b"origin"


@pytest.mark.parametrize("path", ["/cut", "/late"])
async def test_a_fault_in_mid_answer_is_logged(more: Starlette, log: Log, path: str) -> None:
    """An answer that was begun is not begun again; the server closes it."""
    connection = Connection([b""])

    await serve(more, connection, scope(path, method="GET"))

    starts = [each for each in connection.sent if each["type"] == "http.response.start"]
    assert len(starts) == 1
    assert len(log.lines("request.failed")) == 1
    assert log.line("request.served")["status"] == 200


async def test_others_middleware_runs_inside(build: Build, log: Log) -> None:
    """`add_middleware` works, and what it answers has its id and its line too."""
    app = build()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["good.example"])

    answer = await request(app, "/livez", [(b"host", b"bad.example")], method="GET")

    assert answer.status == 400
    assert answer.header(b"x-request-id") is not None
    assert log.line("request.served")["route"] is None


async def test_a_websocket_is_refused(app: Starlette) -> None:
    """There is nothing to talk to, and nothing fails."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(PATH, type="websocket"), receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]
