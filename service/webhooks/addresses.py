"""Which addresses a webhook may reach: none of this machine or its networks, unless allowed.

Whoever may save a webhook could otherwise have this server knock at doors that only it can reach.
A name may change what it stands for at any moment, so it is resolved and checked for each
connection, which then goes to the very address that was checked.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED = (
    IPv6Network("64:ff9b:1::/48"),  # a network's own NAT64: it may lead anywhere within
    IPv6Network("2001::/32"),  # Teredo: the address inside is another machine's word
    IPv6Network("::/96"),  # IPv4 addresses as they were once written in IPv6
    IPv6Network("fec0::/10"),
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)


class PrivateAddressError(Exception):
    """A host stands for an address that webhooks may not reach."""


class UnknownHostError(Exception):
    """A host name stands for no address."""


@dataclass(frozen=True, slots=True)
class AllowedPlaces:
    """Exceptions: host names, and networks in CIDR notation."""

    hosts: frozenset[str]
    networks: Sequence[IPv4Network | IPv6Network]

    @classmethod
    def parse(cls, places: Sequence[str]) -> "AllowedPlaces":
        """Anything that is no address and no network is a host name."""
        hosts: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for place in places:
            try:
                networks.append(ip_network(place, strict=False))
            except ValueError:
                hosts.add(place.lower().rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def admit(self, host: str, address: Address) -> bool:
        if host.lower().rstrip(".") in self.hosts:
            return True
        return any(address in network for network in self.networks) or is_public(address)


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, also where IPv6 wraps one of IPv4."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
    )


def checked_addresses(host: str, port: int, allowed: AllowedPlaces) -> list[str]:
    """What ``host`` stands for now, in the order to try.

    Raises `UnknownHostError`, and `PrivateAddressError` if but one of them is refused: a name that
    mixes public and private addresses has no good reason to.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnknownHostError(f"The host {host} cannot be resolved: {error}.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        if not allowed.admit(host, ip_address(text.partition("%")[0])):
            detail = f"{host} is {text}, an address that is not public."
            raise PrivateAddressError(detail)
    return addresses
