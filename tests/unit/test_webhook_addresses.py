"""Which addresses webhooks may reach, however they are written down."""

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from service.webhooks.addresses import (
    AllowedPlaces,
    PrivateAddressError,
    UnknownHostError,
    checked_addresses,
    is_public,
)

NOTHING = AllowedPlaces.parse(())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "::8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_addresses_of_machines_and_networks_are_refused_also_inside_ipv6(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_addresses_of_the_internet_are_fine(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "localhost", "::1"])
def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises((PrivateAddressError, UnknownHostError)):
        checked_addresses(host, 80, NOTHING)


def test_a_host_of_which_one_address_is_private_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(_host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with pytest.raises(PrivateAddressError, match=r"10\.0\.0\.1"):
        checked_addresses("mixed.example", 443, NOTHING)
    allowed = AllowedPlaces.parse(("10.0.0.0/8",))
    assert checked_addresses("mixed.example", 443, allowed) == ["8.8.8.8", "10.0.0.1"]
    assert checked_addresses("mixed.example", 443, AllowedPlaces.parse(("Mixed.example.",)))


def test_a_name_without_an_address_is_unknown() -> None:
    with pytest.raises(UnknownHostError):
        checked_addresses("no-such-host.invalid", 80, NOTHING)
    with pytest.raises(UnknownHostError):
        checked_addresses("a" * 70 + ".example", 80, NOTHING)


def test_a_network_that_is_allowed_is_no_other_one() -> None:
    allowed = AllowedPlaces.parse(("127.0.0.1", "192.168.7.0/24"))
    assert checked_addresses("127.0.0.1", 80, allowed) == ["127.0.0.1"]
    for other in ("127.0.0.2", "192.168.8.1"):
        with pytest.raises(PrivateAddressError):
            checked_addresses(other, 80, allowed)
