"""Outbound HTTP against real servers on this machine, and against names that lead inside."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from receiver.errors import Refused
from receiver.outbound.client import check_reachable, client

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """A server on a free port that keeps what it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []


@asynccontextmanager
async def serving(
    answer: bytes | Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server()
    open_writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        open_writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                server.heads.append(head)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in open_writers:
            writer.close()


def names(**known: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver of `a_b` for `a.b`; every other name has no address."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        found = known.get(host.replace(".", "_"))
        if found is None:
            raise OSError("unknown")
        return found.split()

    return resolve


async def test_an_allowed_target_is_called() -> None:
    """A private target that is named is called, and the connection is used again."""
    async with serving(OK) as server, client(["127.0.0.1"]) as http:
        for _ in range(3):
            answer = await http.get(f"http://127.0.0.1:{server.port}/")
            assert (answer.status_code, answer.text) == (200, "ok")
    assert server.connections == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
    ],
)
async def test_no_notation_of_this_machine_gets_through(host: str) -> None:
    """F34: loopback in any spelling that the system's resolver takes makes no connection."""
    async with serving(OK) as server, client() as http:
        with pytest.raises((Refused, httpx.ConnectError, httpx.InvalidURL)):
            await http.get(f"http://{host}:{server.port}/")
    assert server.connections == 0


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", "a private address"),
        ("169.254.169.254", "a cloud metadata address"),
        ("100.64.0.1", "a carrier-grade NAT address"),
        ("::ffff:192.168.0.1", "a private address"),
        ("2002:7f00:1::", "a tunnel's address"),
        ("fe80::1", "a link-local address"),
    ],
)
async def test_a_name_that_leads_inside_is_refused(address: str, why: str) -> None:
    """F34: the refusal names the host and why, and neither path nor query."""
    async with client(resolve=names(cdn_example=address)) as http:
        with pytest.raises(Refused, match=f"cdn.example: .* is {why}") as refused:
            await http.get("http://cdn.example/private/path?token=t0ken")
    assert "t0ken" not in str(refused.value)
    assert "path" not in str(refused.value)


async def test_one_inside_address_among_public_ones_is_enough() -> None:
    """F34: every address of a name is checked before the first is called."""
    async with client(resolve=names(cdn_example="1.1.1.1 10.0.0.1")) as http:
        with pytest.raises(Refused, match=r"10\.0\.0\.1"):
            await http.get("http://cdn.example/")


async def test_a_name_that_changes_wins_nothing() -> None:
    """F34: a name is resolved once a connection; what was checked is what is called."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def changing(host: str, port: int) -> list[str]:
        return next(answers)

    async with serving(OK) as server:
        allow = [f"127.0.0.1:{server.port}"]
        async with client(allow, resolve=changing) as http:
            url = f"http://rebind.example:{server.port}/"
            first = await http.get(url, headers={"connection": "close"})
            with pytest.raises(Refused, match=r"rebind\.example: 10\.0\.0\.1"):
                await http.get(url)
    assert first.status_code == 200
    assert next(answers, None) is None


async def test_redirects_are_not_followed_unless_asked() -> None:
    """F34: a redirect comes back as an answer."""
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n"
    async with serving(moved) as server, client(["127.0.0.1"]) as http:
        answer = await http.get(f"http://127.0.0.1:{server.port}/")
    assert answer.status_code == 302


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:1/",
        "http://[::1]/",
        "ftp://cdn.example/",
        "file:///etc/passwd",
        "http://user:pass@1.1.1.1/",
    ],
)
async def test_each_hop_of_a_redirect_is_checked(target: str) -> None:
    """F34: a redirect to the inside, to another scheme or with credentials is refused."""
    moved = f"HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n".encode()
    async with serving(moved) as server:
        allow = [f"127.0.0.1:{server.port}"]
        async with client(allow, redirects=3) as http:
            with pytest.raises((Refused, httpx.UnsupportedProtocol)):
                await http.get(f"http://127.0.0.1:{server.port}/")
    assert len(server.heads) == 1


async def test_redirects_are_bounded() -> None:
    """F34: a circle of redirects ends after as many as were asked for."""
    moved = b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"
    async with serving(moved) as server, client(["127.0.0.1"], redirects=2) as http:
        with pytest.raises(httpx.TooManyRedirects):
            await http.get(f"http://127.0.0.1:{server.port}/")
    assert len(server.heads) == 3


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://cdn.example/x", "only http and https"),
        ("http://user@cdn.example/x", "user or password"),
        ("https://u:s3cret@cdn.example/x", "user or password"),
    ],
)
async def test_a_url_that_is_never_called(url: str, why: str) -> None:
    """F34: other schemes and credentials in the URL are refused, and not repeated."""
    async with client() as http:
        with pytest.raises(Refused, match=why) as refused:
            await http.get(url)
    assert "s3cret" not in str(refused.value)


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """F34: a proxy would connect where nothing checks."""
    async with serving(OK) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with client(resolve=names(cdn_example="10.0.0.1")) as http:
            with pytest.raises(Refused):
                await http.get("http://cdn.example/")
    assert proxy.connections == 0


async def test_the_next_address_is_tried() -> None:
    """A name with one dead address among its addresses still works."""
    async with serving(OK) as server:
        resolve = names(two_example="127.0.0.2 127.0.0.1")
        async with client(["127.0.0.0/8"], resolve=resolve) as http:
            answer = await http.get(f"http://two.example:{server.port}/")
    assert answer.status_code == 200
    assert f"host: two.example:{server.port}".encode() in server.heads[0].lower()


@pytest.mark.parametrize("host", ["nowhere.example", "a" * 64 + ".example"])
async def test_a_name_without_an_address_is_a_connect_error(host: str) -> None:
    """A name that does not resolve may do so later: no refusal."""

    async def unknown(host: str, port: int) -> list[str]:
        host.encode("idna")
        raise OSError

    async with client(resolve=unknown) as http:
        with pytest.raises(httpx.ConnectError, match="does not resolve"):
            await http.get(f"http://{host}/")


async def test_a_name_with_no_addresses_at_all_is_a_connect_error() -> None:
    """An empty answer of the resolver is no connection."""
    async with client(resolve=names(empty_example="")) as http:
        with pytest.raises(httpx.ConnectError, match="no address"):
            await http.get("http://empty.example/", timeout=None)


async def test_a_closed_port_is_a_connect_error() -> None:
    """The error names host and port."""
    async with serving(OK) as server:
        port = server.port
    async with client(["localhost"], resolve=names(localhost="127.0.0.1")) as http:
        with pytest.raises(httpx.ConnectError, match=f"localhost: no connection to port {port}"):
            await http.get(f"http://localhost:{port}/")


async def test_an_endless_answer_is_cut() -> None:
    """F35: no more than the limit is read."""

    async def endless(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as server, client(["127.0.0.1"], max_body=100_000) as http:
        with pytest.raises(Refused, match="longer than 100000 bytes"):
            await http.get(f"http://127.0.0.1:{server.port}/")


async def test_an_answer_that_drips_is_timed_as_a_whole() -> None:
    """F35: a byte now and then does not keep an exchange alive past its limit."""

    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server, client(["127.0.0.1"], timeout=0.15) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(f"http://127.0.0.1:{server.port}/")


async def test_a_head_that_drips_is_timed_as_a_whole() -> None:
    """F35: the same for the head, and the request's own limit goes before the client's."""

    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server, client(["127.0.0.1"], timeout=60) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(f"http://127.0.0.1:{server.port}/", timeout=0.15)


async def test_a_compressed_answer_is_not_unpacked() -> None:
    """F35: a small answer cannot become a huge one."""
    bomb = gzip.compress(b"0" * 100_000)
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    ) + bomb
    async with serving(answer) as server, client(["127.0.0.1"]) as http:
        with pytest.raises(httpx.DecodingError, match="compressed"):
            await http.get(f"http://127.0.0.1:{server.port}/")
    assert b"accept-encoding: identity" in server.heads[0].lower()


async def test_an_answer_that_is_no_http_is_an_error_of_httpx() -> None:
    """Errors of the connection come as httpx's own, whose classes callers know."""
    async with serving(b"SSH-2.0-hello\r\n\r\n") as server, client(["127.0.0.1"]) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"http://127.0.0.1:{server.port}/")


async def test_a_body_cut_short_is_an_error() -> None:
    """F35: half an answer is none."""

    async def cut(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        writer.close()

    async with serving(cut) as server, client(["127.0.0.1"]) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"http://127.0.0.1:{server.port}/")


async def test_paths_and_queries_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """F16: httpx logs every URL; a token in it must not be there."""
    caplog.set_level(logging.DEBUG)
    async with serving(OK) as server, client(["127.0.0.1"]) as http:
        await http.get(f"http://127.0.0.1:{server.port}/services/s3cret?token=t0ken")
    assert "HTTP Request" in caplog.text
    assert "s3cret" not in caplog.text
    assert "t0ken" not in caplog.text


async def test_other_clients_lines_stay_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever uses httpx beside us finds its log as it is."""
    caplog.set_level(logging.INFO)
    async with client():
        logging.getLogger("httpx").info("theirs: %s", httpx.URL("https://a.example/path?query"))
    assert "theirs: https://a.example/path?query" in caplog.text


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's TLS context for a self-signed certificate of one name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


async def test_tls_is_verified_against_the_name(tmp_path: Path) -> None:
    """F34: the connection goes to an address, the certificate must be the name's all the same."""
    theirs, ours = certificate(tmp_path, "good.example")
    resolve = names(good_example="127.0.0.1", evil_example="127.0.0.1")
    http = client(["127.0.0.1"], tls=ours, resolve=resolve)
    async with serving(OK, theirs) as server, http:
        answer = await http.get(f"https://good.example:{server.port}/")
        with pytest.raises(httpx.ConnectError, match="evil"):
            await http.get(f"https://evil.example:{server.port}/")
    assert answer.status_code == 200


async def test_an_unknown_certificate_is_not_trusted(tmp_path: Path) -> None:
    """F34: the usual authorities are asked unless other ones are given."""
    theirs, _ = certificate(tmp_path, "good.example")
    async with serving(OK, theirs) as server:
        resolve = names(good_example="127.0.0.1")
        async with client(["good.example"], resolve=resolve) as http:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await http.get(f"https://good.example:{server.port}/")


def test_a_wrong_allow_list_is_an_error() -> None:
    """F34: an entry that is not understood is never ignored."""
    with pytest.raises(ValueError, match="host:port"):
        client(["http://inside"])


async def test_reaching_is_connecting_and_no_more(tmp_path: Path) -> None:
    """A target is tried, with its certificate where it has one, and no request is made."""
    theirs, ours = certificate(tmp_path, "good.example")
    resolve = names(good_example="127.0.0.1", evil_example="127.0.0.1")
    async with serving(OK) as plain, serving(OK, theirs) as server:
        assert await check_reachable(f"http://127.0.0.1:{plain.port}/a?b", ["127.0.0.1"]) == (
            f"127.0.0.1: port {plain.port} takes connections"
        )
        allow = ["good.example", "evil.example"]
        url = f"https://good.example:{server.port}/"
        assert await check_reachable(url, allow, tls=ours, resolve=resolve) == (
            f"good.example: port {server.port} takes connections with TLS"
        )
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await check_reachable(url, allow, resolve=resolve)
        with pytest.raises(httpx.ConnectError, match="evil"):
            await check_reachable(url.replace("good", "evil"), allow, tls=ours, resolve=resolve)
    assert (plain.heads, server.heads) == ([], [])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/", "is a loopback address"),
        ("ftp://h.example/", "only http and https"),
        ("https://in.example", "is a private address"),
    ],
)
async def test_what_is_not_called_is_not_reached(url: str, why: str) -> None:
    """F34: the guard is the client's."""
    with pytest.raises(Refused, match=why):
        await check_reachable(
            url, resolve=names(in_example="10.0.0.1", **{"127_0_0_1": "127.0.0.1"})
        )


async def test_reaching_has_a_time_limit() -> None:
    """F35: a name that does not resolve in time holds nobody up."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(httpx.ReadTimeout):
        await check_reachable("https://slow.example", timeout=0.01, resolve=resolve)
