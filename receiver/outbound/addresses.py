"""Private address ranges, and the allow-list of those that may be called; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry/
# https://www.iana.org/assignments/iana-ipv6-special-registry/
# Written out, because `ipaddress` differs between Python releases.
_INSIDE: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a carrier-grade NAT address"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "a cloud metadata address"),
        ("169.254.169.254/32", "a cloud metadata address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a documentation address"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a reserved address"),
        ("198.51.100.0/24", "a documentation address"),
        ("203.0.113.0/24", "a documentation address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
        ("2001:db8::/32", "a documentation address"),
        ("2001::/32", "a tunnel's address (Teredo)"),
        ("2001::/23", "a reserved address"),
        ("2002::/16", "a tunnel's address (6to4)"),
        ("3fff::/20", "a documentation address"),
    )
)
# All other IPv6 addresses are reserved or local.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def private_reason(address: Address) -> str | None:
    """The reason why an address must not be called; None for a public one."""
    address = _plain(address)
    for network, reason in _INSIDE:
        if address in network:
            return reason
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return "a reserved address"
    return None


def _plain(address: Address) -> Address:
    """The IPv4 address inside a mapped or NAT64 IPv6 address; any other unchanged."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@dataclass(frozen=True, slots=True)
class AllowList:
    """Private targets that may be called.

    Attributes:
        names: host names, each with its port, or None for every port.
        networks: networks, each with its port, or None for every port.
    """

    names: frozenset[tuple[str, int | None]]
    networks: tuple[tuple[Network, int | None], ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowList:
        """Read `host`, `host:port`, an address, `[v6]:port` or a network such as `10.1.0.0/16`.

        Raises:
            ValueError: an entry is none of these; the text names the accepted forms.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        for entry in entries:
            host, port = _split(entry)
            try:
                networks.append((ip_network(host), port))
            except ValueError:
                # A mistyped address must not pass as a name.
                if not set(host) <= _NAME or not any(letter.isalpha() for letter in host):
                    raise ValueError(_EXPECTED) from None
                names.add((_name(host), port))
        return cls(frozenset(names), tuple(networks))

    def name(self, host: str, port: int) -> bool:
        """True if this host may be called, whatever its addresses are."""
        return (_name(host), None) in self.names or (_name(host), port) in self.names

    def address(self, address: Address, port: int) -> bool:
        """True if this address may be called."""
        address = _plain(address)
        return any(address in network and only in (None, port) for network, only in self.networks)


_EXPECTED = "host, host:port, an address, [v6 address]:port or a network such as 10.1.0.0/16"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def _name(host: str) -> str:
    return host.lower().rstrip(".")


def _split(entry: str) -> tuple[str, int | None]:
    """Split an entry into host and port; None without a port."""
    host, colon, port = entry.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = entry, ""
    elif not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(_EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port) if port else None
