"""URLs of users must not reach inside, however they are written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from core import net
from core.errors import BadInput, Unavailable


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert net.is_private(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses(address: str) -> None:
    assert not net.is_private(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "host/mcp",
        "https://",
        "http://user:pass@host/",
        "http://h:99999/",
        "",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BadInput):
        net.check_url(url, field="url")


def test_host_and_port() -> None:
    assert net.check_url("https://example.org/mcp") == ("example.org", 443)
    assert net.check_url("http://[::1]:8080/mcp") == ("::1", 8080)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "::1"])
async def test_names_for_loopback(host: str) -> None:
    with pytest.raises((BadInput, Unavailable)):
        await net.resolve(host, 80, allow_private=False)


@pytest.mark.anyio
async def test_private_networks_can_be_allowed() -> None:
    assert [str(address) for address in await net.resolve("127.0.0.1", 80, allow_private=True)] == ["127.0.0.1"]


@pytest.mark.anyio
async def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(Unavailable):
        await net.resolve("no-such-host.invalid", 80, allow_private=False)
