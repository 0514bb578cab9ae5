"""Which addresses count as somebody's inside."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.outbound.addresses import AllowList, private_reason

NAT64 = ip_network("64:ff9b::/96")

INSIDE = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("100.64.0.1", "carrier"),
    ("100.100.100.200", "carrier"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("168.63.129.16", "metadata"),
    ("169.254.169.254", "metadata"),
    ("169.254.0.1", "link-local"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.192", "reserved"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "reserved"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "reserved"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "reserved"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:0:10.0.0.1", "reserved"),
    ("64:ff9b::10.0.0.1", "private"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b:1::8.8.8.8", "reserved"),
    ("100::1", "reserved"),
    ("2001::1", "Teredo"),
    ("2001:10::1", "reserved"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4"),
    ("2002:808:808::", "6to4"),
    ("3fff::1", "documentation"),
    ("5f00::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
]


@pytest.mark.parametrize(("address", "why"), INSIDE)
def test_an_inside_address_is_named_as_what_it_is(address: str, why: str) -> None:
    """F34: every class of inside address is refused, also inside another notation."""
    assert why in (private_reason(ip_address(address)) or "public")


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.169.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ],
)
def test_a_public_address_is_public(address: str) -> None:
    """What stands just outside the reserved blocks may be called."""
    assert private_reason(ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_that_python_calls_inside_is_public(address: IPv4Address | IPv6Address) -> None:
    """F34: the own table refuses at least what the standard library knows."""
    if address.is_multicast or address.is_private or address.is_reserved or address.is_link_local:
        # The one difference: a translated address counts as what it leads to.
        translated = isinstance(address, IPv6Address) and (
            address.ipv4_mapped is not None or address in NAT64
        )
        assert translated or private_reason(address) is not None


@given(st.ip_addresses(v=4))
def test_another_notation_changes_nothing(address: IPv4Address) -> None:
    """F34: an IPv4 address in an IPv6 one is judged as itself."""
    for start in ("::ffff:", "64:ff9b::"):
        assert private_reason(IPv6Address(f"{start}{address}")) == private_reason(address)


@pytest.mark.parametrize(
    ("entry", "host", "port", "allowed"),
    [
        ("localhost", "localhost", 80, True),
        ("localhost", "LOCALHOST.", 443, True),
        ("Shop.Internal.", "shop.internal", 80, True),
        ("localhost:8080", "localhost", 8080, True),
        ("localhost:8080", "localhost", 8081, False),
        ("localhost", "localhost.evil.example", 80, False),
        ("internal", "shop.internal", 80, False),
    ],
)
def test_a_name_is_allowed_as_it_stands(entry: str, host: str, port: int, allowed: bool) -> None:
    """F34: a named host is allowed on its port, and no other host that looks like it."""
    assert AllowList.parse([entry]).name(host, port) is allowed


@pytest.mark.parametrize(
    ("entry", "address", "port", "allowed"),
    [
        ("10.1.0.0/16", "10.1.2.3", 80, True),
        ("10.1.0.0/16", "10.2.0.1", 80, False),
        ("10.1.0.0/16:443", "10.1.2.3", 80, False),
        ("10.1.2.3", "10.1.2.3", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 81, False),
        ("10.1.2.3", "::ffff:10.1.2.3", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:80", "::1", 81, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("fd00::/8", "10.1.2.3", 80, False),
    ],
)
def test_a_network_is_allowed_as_it_stands(
    entry: str, address: str, port: int, allowed: bool
) -> None:
    """F34: a named network is allowed on its port, and nothing beside it."""
    assert AllowList.parse([entry]).address(ip_address(address), port) is allowed


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ":80",
        "host:",
        "host:http",
        "host:0",
        "host:65536",
        "host:99999999",
        "http://host",
        "host/path",
        "a b",
        "10.0.0.300",
        "10.0.0.5/8",
        "*",
        "*.internal",
        "exämple.org",
    ],
)
def test_what_is_no_target_is_refused_at_once(entry: str) -> None:
    """F34: an entry that would never match, or match too much, is an error and not silence."""
    with pytest.raises(ValueError, match=r"host:port, an address"):
        AllowList.parse([entry])
